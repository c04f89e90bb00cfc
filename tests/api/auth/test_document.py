"""The OpenAPI document of an API that wants tokens: what it says about security, and whether that is so."""

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from domain.access import OPEN, Role
from tests.api.auth.identity import SigningKey
from tests.api.auth.test_rights import CASES
from tests.api.http.test_openapi import EXCLUDED_CHECKS, SCHEMATHESIS

#: Of each operation; the roles together try as many as are tried where everybody may do everything.
EXAMPLES = 3


def test_each_operation_states_whether_it_needs_credentials(api: httpx.Client) -> None:
    document = api.get("/schema/openapi.json").json()
    needs = {
        (method.upper(), path): one["security"]
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    }
    operations = {(method, path.replace(":str", "").replace(":path", "")): one for one, method, path in CASES}

    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert needs == {at: [] if operations[at] in OPEN else [{"bearer": []}] for at in needs}


@pytest.mark.slow
@pytest.mark.parametrize("role", Role)
def test_each_role_is_answered_as_the_document_says(
    api: httpx.Client, key: SigningKey, tmp_path: Path, role: Role
) -> None:
    (tmp_path / "schemathesis.toml").write_text('[parameters]\n"header.X-Client-Id" = "user:ann"\n')
    token = key.token(role, venues=["lisbon"], provider_id="rita")
    command = [str(SCHEMATHESIS), "run", f"{api.base_url}/schema/openapi.json", "--exclude-checks", EXCLUDED_CHECKS]
    command += ["--header", f"Authorization: Bearer {token}", "--max-examples", str(EXAMPLES), "--seed", "20251120"]
    # What is malformed is refused whoever sends it: see test_openapi.
    command += ["--phases", "examples,fuzzing", "--continue-on-failure", "--no-color", "--warnings", "off"]

    run: Any = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=240)

    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
