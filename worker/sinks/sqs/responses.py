"""What SQS answers, and what that means for each message of a call."""

import re
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from domain.outbox import DELIVERED, Failed, Outcome, Rejected, Unreachable
from worker.sinks.sqs.messages import Chunk

#: Error codes, without what stands before their last dot.
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
#: These find fault with a message. All others find it with the queue, the key or the credentials:
#: an operator's mistake, and no message may die of it.
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
#: Codes of single messages that find fault with something else.
FAULTS_OF_AN_OPERATOR = re.compile(
    r"(?i)kms|AccessDenied|NonExistentQueue|QueueDoesNotExist|InvalidSecurity|InvalidAddress|UnsupportedOperation"
    r"|InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch|ExpiredToken|OptInRequired|ServiceUnavailable"
)


def each(chunk: Chunk, outcome: Outcome) -> Mapping[int, Outcome]:
    return {entry.row_id: outcome for entry in chunk}


def read(answer: Mapping[str, Any], chunk: Chunk) -> Mapping[int, Outcome]:
    """Return what became of each message. One that is not spoken of may have been taken or not."""
    taken = {entry["Id"] for entry in answer.get("Successful", ())}
    failed = {entry["Id"]: entry for entry in answer.get("Failed", ())}
    outcomes: dict[int, Outcome] = {}
    for number, entry in enumerate(chunk):
        if str(number) in failed:
            outcomes[entry.row_id] = _failed(failed[str(number)])
        elif str(number) in taken:
            outcomes[entry.row_id] = DELIVERED
        else:
            outcomes[entry.row_id] = Unreachable("SQS answered, but not what became of this message")
    return outcomes


def _failed(entry: Mapping[str, Any]) -> Outcome:
    """Return what it means that one message of a call was not taken."""
    code = str(entry.get("Code", "")).rpartition(".")[2]
    said = f"{entry.get('Code')}: {entry.get('Message')}"
    if code in THROTTLED:
        return Unreachable(said, throttled=True)
    if FAULTS_OF_AN_OPERATOR.search(str(entry.get("Code"))):
        return Unreachable(said)
    return Rejected(said) if entry.get("SenderFault") else Failed(said)


def refused(error: ClientError) -> Outcome:
    """Return what it means that a whole call was not taken."""
    code = _code(error.response)
    if code in THROTTLED or _status(error.response) == 429:
        return Unreachable(str(error), throttled=True)
    return Rejected(str(error)) if code in FAULTS_OF_A_MESSAGE else Unreachable(str(error))


def finds_fault_with_a_message(error: ClientError) -> bool:
    return _code(error.response) in FAULTS_OF_A_MESSAGE


def _code(response: Mapping[str, Any]) -> str:
    return str(response.get("Error", {}).get("Code", "")).rpartition(".")[2]


def _status(response: Mapping[str, Any]) -> int:
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
