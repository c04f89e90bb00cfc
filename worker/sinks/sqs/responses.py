"""The responses of SQS, and what each means for every message of a call."""

import re
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from domain.outbox import DELIVERED, Cause, Outcome, Rejected, Unreachable
from worker.sinks.sqs.messages import Chunk

#: The codes of errors by which SQS says that it gets too many calls, without what is before their last dot.
THROTTLED = frozenset(
    {
        "KmsThrottled",
        "LimitExceededException",
        "OverLimit",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
#: The codes of errors in a message. Every other error is in the queue, the key or the credentials: an operator has
#: made a mistake, and no message may become a dead letter because of it.
FAULTS_OF_A_MESSAGE = frozenset(
    {
        "BatchRequestTooLong",
        "InvalidAttributeName",
        "InvalidAttributeValue",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "MessageTooLong",
    }
)
#: Codes that SQS gives for a single message although the error is elsewhere.
FAULTS_OF_AN_OPERATOR = re.compile(
    r"(?i)kms|AccessDenied|NonExistentQueue|QueueDoesNotExist|InvalidSecurity|InvalidAddress|UnsupportedOperation"
    r"|InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch|ExpiredToken|OptInRequired|ServiceUnavailable"
)


def same_for_all(chunk: Chunk, outcome: Outcome) -> Mapping[int, Outcome]:
    return {entry.row_id: outcome for entry in chunk}


def outcomes_of(response: Mapping[str, Any], chunk: Chunk) -> Mapping[int, Outcome]:
    """Return what became of each message. If the response does not mention one, it may have been taken or not."""
    taken = {entry["Id"] for entry in response.get("Successful", ())}
    failed = {entry["Id"]: entry for entry in response.get("Failed", ())}
    outcomes: dict[int, Outcome] = {}
    for number, entry in enumerate(chunk):
        if str(number) in failed:
            outcomes[entry.row_id] = _outcome_of_failed(failed[str(number)])
        elif str(number) in taken:
            outcomes[entry.row_id] = DELIVERED
        else:
            outcomes[entry.row_id] = Unreachable("SQS answered, but not what became of this message")
    return outcomes


def _outcome_of_failed(entry: Mapping[str, Any]) -> Outcome:
    """Return what it means that SQS did not take one message of a call."""
    code = str(entry.get("Code", "")).rpartition(".")[2]
    message = f"{entry.get('Code')}: {entry.get('Message')}"
    if code in THROTTLED:
        return Unreachable(message, cause=Cause.LOAD)
    if FAULTS_OF_AN_OPERATOR.search(str(entry.get("Code"))):
        return Unreachable(message)
    return Rejected(message) if entry.get("SenderFault") else Unreachable(message, cause=Cause.ERROR)


def outcome_of_error(error: ClientError) -> Outcome:
    """Return what it means for each message that SQS did not take a whole call."""
    code = _code(error.response)
    if code in THROTTLED or _status(error.response) in {429, 503}:
        return Unreachable(str(error), cause=Cause.LOAD)
    return Rejected(str(error)) if code in FAULTS_OF_A_MESSAGE else Unreachable(str(error))


def blames_a_message(error: ClientError) -> bool:
    return _code(error.response) in FAULTS_OF_A_MESSAGE


def _code(response: Mapping[str, Any]) -> str:
    return str(response.get("Error", {}).get("Code", "")).rpartition(".")[2]


def _status(response: Mapping[str, Any]) -> int:
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
