"""What a request and its answer may cost: each limit keeps a client from taking what others need."""

#: The largest body. A reservation with the longest note and the largest metadata takes 25,000 bytes, and twice as
#: many if most characters are written as escapes. The most expensive body of this size keeps the event loop busy
#: for 10 ms.
MAX_BODY_BYTES = 65_536

#: The pieces in which a body may arrive. Each costs processor time.
MOST_PIECES = 2_000

#: A body that has not arrived within this time is refused.
BODY_SECONDS = 5.0

#: The longest path. A sku has 64 characters at most, and each of them takes at most 12 bytes in a path. The framework
#: remembers the last thousands of paths and of queries, so these limits are limits of memory as well.
MAX_PATH_BYTES = 1_024

#: The part of a name that a problem repeats, in characters: a client may have sent any name.
SHOWN_CHARACTERS = 255

#: The longest query string. Every list can be asked for with less.
MAX_QUERY_BYTES = 4_096

#: What is large, or has no end, is sent in parts of about this size. A client that does not take the next part within
#: that time, in seconds, is disconnected.
PART_BYTES, SEND_SECONDS = 65_536, 20.0
