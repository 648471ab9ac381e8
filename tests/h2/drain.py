"""Requests without a pause until the server says that it goes away; then whether each that it took was answered.

drain.py PORT CONNECTIONS   prints `begun` once every connection has had answers, and in the end how many there were
"""

import sys
import threading

import wire

SIDE_BY_SIDE = 10


def drive(port, begun, results):
    try:
        results.append(requests(port, begun))
    except (wire.Failure, OSError) as error:
        results.append(error)
        begun.release()


def requests(port, begun):
    connection = wire.Connection(("127.0.0.1", port))
    answered, open_streams, said = 0, [], []
    while not connection.closed:
        while not connection.goaway and len(open_streams) < SIDE_BY_SIDE:
            open_streams.append(connection.get("/bytes/500"))
            connection.update(0, 1000)
        connection.read()
        if connection.goaway and connection.goaway not in said:
            said.append(connection.goaway)
        for stream in [s for s in open_streams if connection.stream(s).over]:
            its = connection.stream(stream)
            if its.reset is not None or its.status != 200 or len(its.body) != 500:
                raise wire.Failure(f"stream {stream}: {its.status}, reset {its.reset}, {len(its.body)} bytes")
            open_streams.remove(stream)
            answered += 1
            if answered == 20:
                begun.release()
    last = (1 << 31) - 1
    if not said or said[0] != (0, last) or len(said) != 2 or said[1][0] != 0:
        raise wire.Failure(f"GOAWAY: {said}")
    lost = [stream for stream in open_streams if stream <= said[1][1]]
    if lost:
        raise wire.Failure(f"taken and not answered: {lost}; {said}")
    return answered


def main():
    port, connections = map(int, sys.argv[1:])
    begun, results = threading.Semaphore(0), []
    threads = [threading.Thread(target=drive, args=(port, begun, results)) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for _ in threads:
        begun.acquire()
    print("begun", flush=True)
    for thread in threads:
        thread.join()
    bad = [result for result in results if not isinstance(result, int)]
    print(*bad or [sum(results)], sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
