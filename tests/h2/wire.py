"""The client's end of an HTTP/2 connection over TLS, frame by frame: it sends whatever it is told to, right or wrong,
and keeps the books on what comes. It is built on hyperframe (frames that are received) and hpack (their fields), not on
a state machine that would refuse to misbehave. Used by conformance.py and floods.py.
"""

import socket
import ssl
import struct
import time

import hpack
import hyperframe.exceptions
import hyperframe.frame as frames

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Kinds of frames.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
# Flags.
ACK = END_STREAM = 0x1
END_HEADERS, PADDED, PRIORITIZED = 0x4, 0x8, 0x20
# Settings.
TABLE_SIZE, ENABLE_PUSH, STREAMS, WINDOW, FRAME_SIZE, LIST_SIZE = range(1, 7)
CONNECT_PROTOCOL = 8
# Errors.
ERRORS = (
    "NO_ERROR PROTOCOL INTERNAL FLOW_CONTROL SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE REFUSED CANCEL COMPRESSION "
    "CONNECT CALM INADEQUATE_SECURITY HTTP_1_1"
).split()
# Nothing takes longer on a working machine.
LIMIT = 20


class Failure(Exception):
    """Something else happened than should have."""


def name(code):
    return ERRORS[code] if code < len(ERRORS) else str(code)


def number(value, bits, first=0):
    """An integer behind the bits `first` (RFC 7541, 5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + [value])


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return number(len(value), 7) + value


def literal(field, value, first=0x00, bits=4):
    """A field as a literal that enters no table, however wrong it is."""
    return number(0, bits, first) + text(field) + text(value)


def indexed(field, value):
    """A field as a literal that enters the table."""
    return literal(field, value, 0x40, 6)


def block(fields):
    return b"".join(literal(*field) for field in fields)


def request(path="/", *more, method="GET", authority="site.example"):
    """The fields of a good request."""
    pseudo = [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]
    return pseudo + list(more)


def without(fields, *names):
    return [field for field in fields if field[0] not in names]


class Stream:
    """What has come on one stream."""

    def __init__(self, window):
        self.heads = []
        self.body = bytearray()
        self.trailers = None
        self.ended = False
        self.reset = None
        self.window = window

    @property
    def status(self):
        """That of the final answer; None before it."""
        codes = [int(dict(head)[":status"]) for head in self.heads]
        return next((code for code in codes if code >= 200), None)

    @property
    def fields(self):
        return dict(self.heads[-1])

    @property
    def over(self):
        return self.ended or self.reset is not None


class Connection:
    def __init__(self, address, settings=(), greet=True, receive_buffer=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        plain = socket.socket()
        if receive_buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.settimeout(LIMIT)
        plain.connect(address)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname="site.example")
        if self.socket.selected_alpn_protocol() != "h2":
            raise Failure("the server does not take h2")
        self.deadline = time.monotonic() + LIMIT
        self.decoder = hpack.Decoder()
        self.received = bytearray()
        self.open_block = None
        # What has come, all in all.
        self.kinds = []
        self.streams = {}
        self.settings = {}
        self.settings_acks = 0
        self.pongs = []
        self.goaway = None
        self.closed = False
        # Bytes that the server may send, and that we may; `pending` are windows that it has yet to acknowledge.
        self.window = 65535
        self.first_window = 65535
        self.frame_size = 16384
        self.pending = []
        self.credit = {0: 65535}
        self.next = 1
        if greet:
            self.send(PREFACE)
            self.set(*settings)
            self.until(lambda: self.settings and self.settings_acks)

    # Sending.

    def send(self, data):
        """Sends bytes; that the server has closed meanwhile is told by reading."""
        self.socket.settimeout(LIMIT)
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            pass

    @staticmethod
    def bytes_of(kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload

    def frame(self, kind, flags, stream, payload=b""):
        self.send(self.bytes_of(kind, flags, stream, payload))

    def set(self, *pairs):
        for setting, value in pairs:
            if setting == WINDOW and value < 1 << 31:
                self.pending.append((self.settings_sent, value))
                if value > self.first_window:
                    self.change_window(value)
        self.settings_sent += 1
        self.frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))

    settings_sent = 0

    def change_window(self, value):
        for stream in self.streams.values():
            stream.window += value - self.first_window
        self.first_window = value

    def headers(self, stream, fields, end=True, flags=0):
        payload = fields if isinstance(fields, bytes) else block(fields)
        self.frame(HEADERS, flags | END_HEADERS | (END_STREAM if end else 0), stream, payload)

    def get(self, path="/", *more, **changes):
        """Sends a request on the next stream, whose number it returns."""
        end = changes.pop("end", True)
        stream, self.next = self.next, self.next + 2
        self.headers(stream, request(path, *more, **changes), end=end)
        return stream

    def post(self, path="/echo", *more):
        """Opens a request whose body is to follow."""
        return self.get(path, *more, method="POST", end=False)

    def data(self, stream, payload=b"", end=False, flags=0):
        self.frame(DATA, flags | (END_STREAM if end else 0), stream, payload)

    def upload(self, stream, payload, end=True):
        """Sends body as the server's windows allow."""
        payload = memoryview(payload)
        while payload:
            room = lambda: min(self.credit[0], self.room(stream), 16384)
            if room() <= 0:
                self.until(lambda: room() > 0 or self.stream(stream).over, "a window")
                if self.stream(stream).over:
                    return
            piece, payload = payload[: room()], payload[room() :]
            self.spend(stream, len(piece))
            self.data(stream, bytes(piece), end=end and not payload)

    def room(self, stream):
        return self.credit.get(stream, 0) + self.settings.get(WINDOW, 65535)

    def spend(self, stream, count):
        self.credit[0] -= count
        self.credit[stream] = self.credit.get(stream, 0) - count

    def update(self, stream, increment):
        if stream == 0:
            self.window += increment
        else:
            self.stream(stream).window += increment
        self.frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))

    def reset(self, stream, code=8):
        self.frame(RST_STREAM, 0, stream, struct.pack(">I", code))

    def close(self):
        try:
            self.socket.close()
        except OSError:
            pass

    # Receiving.

    def stream(self, number_):
        return self.streams.setdefault(number_, Stream(self.first_window))

    def fill(self, count, wait):
        """Has at least `count` bytes; False: the server has closed, or nothing came within `wait`."""
        while len(self.received) < count:
            left = max(min(self.deadline - time.monotonic(), wait), 0.001)
            self.socket.settimeout(left)
            try:
                piece = self.socket.recv(65536)
            except TimeoutError:
                if time.monotonic() >= self.deadline:
                    raise Failure("waited in vain") from None
                return False
            except (ConnectionError, ssl.SSLError):
                piece = b""
            if not piece:
                self.closed = True
                return False
            self.received += piece
        return True

    def read(self, wait=LIMIT):
        """Takes the next frame into the books and returns it; None when the server has closed or is silent."""
        if self.closed or not self.fill(9, wait):
            return None
        head = bytes(self.received[:9])
        length = int.from_bytes(head[:3], "big")
        if length > self.frame_size:
            raise Failure(f"a frame of {length} bytes")
        if not self.fill(9 + length, LIMIT):
            return None
        payload = bytes(self.received[9 : 9 + length])
        del self.received[: 9 + length]
        try:
            frame, _ = frames.Frame.parse_frame_header(memoryview(head))
            frame.parse_body(memoryview(payload))
        except hyperframe.exceptions.HyperframeError as error:
            raise Failure(f"a malformed frame: {error}") from error
        self.take(frame, length)
        return frame

    def take(self, frame, length):
        kind = type(frame)
        if not self.kinds and kind is not frames.SettingsFrame:
            raise Failure(f"{kind.__name__} came first")
        self.kinds.append(kind)
        if self.open_block and kind is not frames.ContinuationFrame:
            raise Failure("a block of fields was interrupted")
        if kind is frames.SettingsFrame:
            self.take_settings(frame)
        elif kind is frames.PingFrame:
            if "ACK" in frame.flags:
                self.pongs.append(frame.opaque_data)
            else:
                self.frame(PING, ACK, 0, frame.opaque_data)
        elif kind is frames.GoAwayFrame:
            self.goaway = (frame.error_code, frame.last_stream_id)
        elif kind is frames.WindowUpdateFrame:
            number_ = frame.stream_id
            self.credit[number_] = self.credit.get(number_, 0) + frame.window_increment
        elif kind is frames.RstStreamFrame:
            self.stream(frame.stream_id).reset = frame.error_code
        elif kind in (frames.HeadersFrame, frames.ContinuationFrame):
            self.take_block(frame)
        elif kind is frames.DataFrame:
            self.take_data(frame, length)
        elif kind is frames.PushPromiseFrame:
            raise Failure("a PUSH_PROMISE came")

    def take_settings(self, frame):
        if "ACK" in frame.flags:
            # Windows are judged by what was acknowledged, but a larger one counts as soon as it was sent.
            for at, value in [pair for pair in self.pending if pair[0] == self.settings_acks]:
                self.pending.remove((at, value))
                if value < self.first_window:
                    self.change_window(value)
            self.settings_acks += 1
        else:
            self.settings.update(frame.settings)
            self.settings.setdefault(WINDOW, 65535)
            self.frame(SETTINGS, ACK, 0)

    def take_block(self, frame):
        if isinstance(frame, frames.HeadersFrame):
            self.open_block = [frame.stream_id, b"", "END_STREAM" in frame.flags]
        elif not self.open_block or self.open_block[0] != frame.stream_id:
            raise Failure("CONTINUATION of nothing")
        self.open_block[1] += frame.data
        if "END_HEADERS" not in frame.flags:
            return
        number_, data, end = self.open_block
        self.open_block = None
        stream = self.stream(number_)
        if stream.over:
            raise Failure("HEADERS on a stream that has ended")
        try:
            fields = self.decoder.decode(data)
        except hpack.HPACKError as error:
            raise Failure(f"a malformed block of fields: {error!r}") from error
        for field, _ in fields:
            if field != field.lower():
                raise Failure(f"a name with capital letters: {field}")
        if stream.status is None:
            stream.heads.append(fields)
            if [field for field, _ in fields if field.startswith(":")] != [":status"]:
                raise Failure(f"pseudo-header fields of an answer: {fields}")
        elif end:
            stream.trailers = fields
        else:
            raise Failure("HEADERS within the body")
        stream.ended = end

    def take_data(self, frame, length):
        stream = self.stream(frame.stream_id)
        stream.window -= length
        self.window -= length
        if length and (stream.window < 0 or self.window < 0):
            raise Failure(f"more body than the window: {stream.window}, {self.window}")
        if stream.over or stream.status is None:
            raise Failure("DATA on a stream without a head, or one that has ended")
        stream.body += frame.data
        stream.ended = "END_STREAM" in frame.flags

    # Waiting.

    def until(self, condition, what="an answer"):
        """Reads until the condition holds; fails when the server closes before."""
        while not condition():
            if self.read() is None and not condition():
                raise Failure(f"closed before {what}; {self.told()}")

    def told(self):
        """What the server has said that it minds."""
        minded = [f"stream {n}: {name(s.reset)}" for n, s in self.streams.items() if s.reset is not None]
        if self.goaway:
            minded.append(f"GOAWAY {name(self.goaway[0])}")
        return ", ".join(minded) or "no error was told"

    def ping(self, payload=b"12345678"):
        """Everything that was sent before has been looked at when it returns."""
        count = self.pongs.count(payload)
        self.frame(PING, 0, 0, payload)
        self.until(lambda: self.pongs.count(payload) > count, "the answer to PING")

    def answer(self, stream, status=200):
        """Waits for a whole answer with this status."""
        its = self.stream(stream)
        self.until(lambda: its.over, "the answer")
        if its.reset not in (None, 0) or its.status != status or not its.ended:
            raise Failure(f"status {its.status} instead of {status}; {self.told()}")
        return its

    def fails(self, *codes, silent=False):
        """The connection ends with GOAWAY and one of these codes; `silent`: without it, perhaps."""
        while self.read() is not None:
            pass
        if not self.goaway:
            if silent:
                return
            raise Failure("closed without GOAWAY")
        if name(self.goaway[0]) not in codes:
            raise Failure(f"GOAWAY {name(self.goaway[0])} instead of {' or '.join(codes)}")

    def stream_fails(self, stream, *codes):
        """The stream is reset with one of these codes, or the connection ends with one."""
        its = self.stream(stream)
        while its.reset is None and self.read() is not None:
            pass
        if its.reset is None:
            return self.fails(*codes)
        if name(its.reset) not in codes:
            raise Failure(f"RST_STREAM {name(its.reset)} instead of {' or '.join(codes)}")
        return None

    def is_malformed(self, stream):
        """A malformed request: reset, or answered with 400 (RFC 9113, 8.1.1), and no more."""
        its = self.stream(stream)
        while not its.over and its.status is None and self.read() is not None:
            pass
        if its.status is None:
            self.stream_fails(stream, "PROTOCOL")
        elif its.status != 400:
            raise Failure(f"answered with {its.status}")
