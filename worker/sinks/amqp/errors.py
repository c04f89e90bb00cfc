"""What an error of pika says to an operator, and what to do about it. pika wraps errors in errors."""

import ssl

from pika.adapters.utils.connection_workflow import AMQPConnectionWorkflowFailed, AMQPConnectorPhaseErrorBase
from pika.exceptions import (
    AMQPError,
    ChannelClosed,
    ConnectionClosed,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

#: OpenSSL's numbers of what is wrong with a certificate. Source: openssl-verification-options(1), X509_V_ERR_*.
NOT_YET_VALID, EXPIRED, OTHER_HOST, OTHER_ADDRESS = 9, 10, 62, 64

WANTS_CERTIFICATE = (
    "RabbitMQ ended the connection before it was open. It may want a certificate of its clients: name one that it"
    " trusts by the options certfile and keyfile"
)

MAY_SPEAK_TLS = (
    "RabbitMQ ended the connection before it was open. If this port is for TLS, write amqps:// in place of amqp://"
)

SPEAKS_NO_TLS = "the server does not speak TLS at this port. Use its port for TLS, which is 5671 by default, or amqp://"


def describe(error: object, *, is_tls: bool) -> str:
    """Return the part of an error of a connection that an operator needs."""
    match error:
        case AMQPConnectionWorkflowFailed(exceptions=[*_, inner]) | AMQPConnectorPhaseErrorBase(exception=inner):
            return describe(inner, is_tls=is_tls)
        case ProbableAuthenticationError():
            return "RabbitMQ refuses the user or the password"
        case ProbableAccessDeniedError():
            return f"RabbitMQ refuses this user the virtual host: {error}"
        case IncompatibleProtocolError():
            return WANTS_CERTIFICATE if is_tls else MAY_SPEAK_TLS
        case ConnectionClosed() | ChannelClosed():
            return f"{error.reply_code} {error.reply_text}"
        case AMQPError(args=[BaseException() as inner]):
            return describe(inner, is_tls=is_tls)
        case OSError(strerror=str()):
            return _describe_network(error)
    return f"{type(error).__name__}: {error}"


def _describe_network(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"RabbitMQ's certificate can't be trusted: {error.verify_message.rstrip('.')}. {_remedy(error)}"
    reason = error.reason or "" if isinstance(error, ssl.SSLError) else ""
    if reason == "WRONG_VERSION_NUMBER":
        return SPEAKS_NO_TLS
    # An alert is what the server says about its client.
    return WANTS_CERTIFICATE if "ALERT" in reason else f"can't connect: {error.strerror}"


def _remedy(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in {NOT_YET_VALID, EXPIRED}:
        return "Have RabbitMQ use a certificate that is valid today, and check the clock of this machine"
    if error.verify_code in {OTHER_HOST, OTHER_ADDRESS}:
        return "Write a host in the URL that the certificate names, or have RabbitMQ use one for this host"
    return "Name the file with the certificate of the CA that has signed it by the option cacertfile"
