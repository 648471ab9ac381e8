"""QUIC members and clients for the end-to-end tests, on the library `aioquic`.

members COUNT KIND     COUNT members on free ports of 127.0.0.77, which it prints, each a process of its own; they run
                       until the input ends. Each answers a stream with its number. Every second one asks for Retry.
                       KIND "server-id": their connection ids say at 1 which member has issued them; "random": nothing
clients PORT COUNT HOW [told]
                       COUNT connections that ask who answers, move to a new port and ask again, three times.
                       HOW "same-id": with the id that they have; "new-id": with the next one of the member's.
                       With "told" they say before each move that they are ready, and wait for a line.
                       Prints how many stayed with their member, how many didn't, and how many members there were
"""

import asyncio
import datetime
import os
import ssl
import sys

import aioquic.quic.connection
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

# Unlike that of anything else that is drawn at random, so that it is known for what an id is drawn.
ID_LENGTH = 11
LIMIT = 60


class Ids:
    """Stands for the library's `os`: ids that say which member has issued them."""

    def __init__(self, number):
        self.server_id = bytes([0xA5, 0x5A, number])

    def urandom(self, count):
        drawn = os.urandom(count)
        return drawn if count != ID_LENGTH else drawn[:1] + self.server_id + drawn[4:]


def certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "member")])
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    return made.sign(key, hashes.SHA256()), key


async def member(number, kind, report):
    if kind == "server-id":
        aioquic.quic.connection.os = Ids(number)
    settings = QuicConfiguration(is_client=False, connection_id_length=ID_LENGTH)
    settings.certificate, settings.private_key = certificate()

    def answer(reader, writer):
        async def run():
            await reader.read()
            writer.write(b"%d" % number)
            writer.write_eof()

        asyncio.ensure_future(run())

    server = await serve(
        "127.0.0.77", 0, configuration=settings, retry=number % 2 == 1, stream_handler=answer
    )
    port = server._transport.get_extra_info("sockname")[1]
    os.write(report, b"%d\n" % port)
    await asyncio.Event().wait()


def members(count, kind):
    children, ports = [], []
    for number in range(count):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            os.close(0)
            asyncio.run(member(number, kind, write))
            os._exit(0)
        os.close(write)
        children.append(child)
        with os.fdopen(read) as report:
            ports.append(report.readline().strip())
    print(" ".join(ports), flush=True)
    sys.stdin.read()
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)


class Port(asyncio.DatagramProtocol):
    """A socket of a connection's that may get others."""

    def __init__(self, connection):
        self.connection = connection

    def datagram_received(self, data, addr):
        self.connection.datagram_received(data, addr)


async def move(connection):
    loop = asyncio.get_running_loop()
    former = connection._transport
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Port(connection), local_addr=("127.0.0.1", 0)
    )
    connection._transport = transport
    if former is not None:
        former.close()


async def ask(connection):
    reader, writer = await connection.create_stream()
    writer.write(b"who")
    writer.write_eof()
    return int(await asyncio.wait_for(reader.read(), LIMIT))


async def begin(port, turn):
    async with turn:
        settings = QuicConfiguration(is_client=True, verify_mode=ssl.CERT_NONE, server_name="member")
        connection = QuicConnectionProtocol(QuicConnection(configuration=settings))
        await move(connection)
        connection.connect(("127.0.0.1", port))
        await asyncio.wait_for(connection.wait_connected(), LIMIT)
        return connection, await ask(connection)


async def again(connection, how, turn):
    async with turn:
        if how == "new-id":
            connection._quic.change_connection_id()
        await move(connection)
        try:
            return await ask(connection)
        except asyncio.TimeoutError:
            return None


async def clients(port, count, how, told):
    # Few at a time, so that no member's answers are late; all of them live until the end.
    turn = asyncio.Semaphore(16)
    begun = await asyncio.gather(*(begin(port, turn) for _ in range(count)))
    connections, homes = zip(*begun)
    stays = [True] * count
    for _ in range(3):
        if told:
            print("ready", flush=True)
            # They go on meanwhile.
            await asyncio.to_thread(sys.stdin.readline)
        now = await asyncio.gather(*(again(connection, how, turn) for connection in connections))
        stays = [stay and home == here for stay, home, here in zip(stays, homes, now)]
    for connection in connections:
        connection.close()
    print(sum(stays), count - sum(stays), len(set(homes)))


def main():
    if sys.argv[1] == "members":
        members(int(sys.argv[2]), sys.argv[3])
    else:
        asyncio.run(clients(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], "told" in sys.argv[5:]))


main()
