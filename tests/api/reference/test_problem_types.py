"""The pages about problems: each `type` leads to one, and docs/problems.md has them all."""

import re

import httpx
import pytest

from api.http.problems import ALL, FACTS, ProblemType, pages
from domain.runtime.settings import ROOT


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.slug)
def test_a_type_leads_to_a_page_that_says_when_it_occurs_and_what_to_do(api: httpx.Client, one: ProblemType) -> None:
    page = api.get(one.uri)

    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert page.text == pages.page(one)
    for part in (one.slug, str(one.status), one.when, one.remedy, *(f"`{name}`" for name in FACTS[one])):
        assert part in page.text


def test_the_type_of_a_problem_is_a_reference_that_can_be_followed(api: httpx.Client) -> None:
    refused = api.get("/items/NONE")

    page = api.get(refused.url.join(refused.json()["type"]))

    assert page.text.startswith("## unknown-item\n")


def test_there_is_a_list_of_the_types(api: httpx.Client) -> None:
    assert re.findall(r"^- (\d+) (\S+)$", api.get("/problems").text, re.MULTILINE) == [
        (str(one.status), one.uri) for one in ALL
    ]


def test_a_type_that_does_not_exist_has_no_page(api: httpx.Client) -> None:
    assert api.get("/problems/nothing").json()["type"] == "/problems/no-such-resource"


def test_the_page_in_docs_is_made_from_the_same_table() -> None:
    written = (ROOT / "docs" / "problems.md").read_text()

    assert written == pages.document(), "run: bin/python -m api.http.problems.pages > docs/problems.md"
