"""Cases from RFC 9113, RFC 8441 and RFC 7541, each on a connection of its own, with another one behind it that shows
that the server still serves. Where the RFCs leave a choice each choice is right.

conformance.py PORT [WORD]   runs the cases (those with WORD in their name) against 127.0.0.1:PORT, behind which is
                             member.py; prints a line a case, `ok NAME` or `FAIL NAME: why`
conformance.py --list        prints the names
"""

import sys

import cases_frames
import cases_kinds
import cases_messages
import cases_packing
import wire
from suite import CASES

MODULES = (cases_frames, cases_kinds, cases_messages, cases_packing)


def run(address, function, settings):
    """Why the case fails; None when it doesn't."""
    connection = None
    try:
        connection = wire.Connection(address, **settings)
        function(connection)
    except (wire.Failure, OSError, KeyError, ValueError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        if connection:
            connection.close()
    try:
        after = wire.Connection(address)
        after.answer(after.get())
        after.close()
    except (wire.Failure, OSError) as error:
        return f"another connection afterwards: {error}"
    return None


def main():
    if sys.argv[1] == "--list":
        print(*(name for name, _, _ in CASES), sep="\n")
        return 0
    address = ("127.0.0.1", int(sys.argv[1]))
    word = sys.argv[2] if len(sys.argv) > 2 else ""
    failed = 0
    for name, function, settings in CASES:
        if word in name:
            why = run(address, function, settings)
            failed += why is not None
            print(f"FAIL {name}: {why}" if why else f"ok {name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
