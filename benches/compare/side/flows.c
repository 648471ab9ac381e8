// Load and members for TCP and UDP proxies: messages of one size go to a member and come back as they are.
//
//   flows echo-tcp PORT               a member; echoes what comes
//   flows echo-tcp-once PORT SIZE     a member; echoes a message of SIZE bytes and ends the connection
//   flows echo-udp PORT...            members, one a port
//   flows tcp PORT CONNECTIONS SIZE SECONDS    persistent connections, one message at a time each
//   flows tcpconn PORT CONNECTIONS SIZE SECONDS    so many at a time, a new one for each message; the member ends it
//   flows udp PORT FLOWS SIZE SECONDS WINDOW   flows in turn, so many of them waiting for an answer at a time
//   flows hold-udp PORT COUNT SIZE    flows that have had an answer; see hold_udp()
//
// The loads print the result line of load.h.
#include "load.h"

enum { BATCH = 64, LONGEST = 2048, LOST_US = 200000, SWEEP_MS = 50, FIRST = 8, FLOWS_AN_ADDRESS = 10000 };

struct flow {
    int fd, waiting;
    size_t got;
    int64_t sent;
};

static char message[LONGEST];
static int port, size;

static int bound(int type, int at) {
    struct sockaddr_in address = loopback(INADDR_LOOPBACK, at);
    int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0), on = 1;
    if (fd < 0) fail("socket");
    if (type == SOCK_STREAM) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
    return fd;
}

// Takes what waits at the listening socket.
static void accept_all(int epoll, int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct flow *f = calloc(1, sizeof *f);
        f->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(epoll, fd, EPOLLIN, f);
    }
}

static void echo_tcp(int once) {
    int listener = bound(SOCK_STREAM, port), epoll = epoll_create1(0);
    if (listen(listener, 4096) < 0) fail("listen");
    watch(epoll, listener, EPOLLIN, NULL);
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct flow *f = events[i].data.ptr;
            char bytes[65536];
            if (!f) {
                accept_all(epoll, listener);
                continue;
            }
            ssize_t got = recv(f->fd, bytes, sizeof bytes, 0);
            if (got > 0 && send(f->fd, bytes, (size_t)got, MSG_NOSIGNAL) == got) {
                f->got += (size_t)got;
                if (!once || f->got < (size_t)size) continue;
            } else if (got < 0 && errno == EAGAIN) {
                continue;
            }
            close(f->fd);
            free(f);
        }
    }
}

// Echoes what waits at a member's socket, a batch at a time.
static void echo_batches(int fd) {
    static char bytes[BATCH][LONGEST];
    static struct sockaddr_in from[BATCH];
    static struct iovec pieces[BATCH];
    static struct mmsghdr batch[BATCH];
    int got;
    do {
        for (int i = 0; i < BATCH; i++) {
            pieces[i] = (struct iovec){bytes[i], LONGEST};
            batch[i].msg_hdr = (struct msghdr){
                .msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &pieces[i], .msg_iovlen = 1};
        }
        got = recvmmsg(fd, batch, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < got; i++) pieces[i].iov_len = batch[i].msg_len;
        for (int sent = 0; sent < got;) {
            int more = sendmmsg(fd, batch + sent, (unsigned)(got - sent), 0);
            sent += more > 0 ? more : 1;  // one that is refused is the client's loss
        }
    } while (got == BATCH);
}

static void echo_udp(int count, char **ports) {
    int epoll = epoll_create1(0);
    for (int i = 0; i < count; i++) {
        int fd = bound(SOCK_DGRAM, atoi(ports[i])), room = 1 << 20;
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
        watch(epoll, fd, EPOLLIN, (void *)(intptr_t)fd);
    }
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) echo_batches((int)(intptr_t)events[i].data.ptr);
    }
}

static int say(struct flow *f) {
    f->sent = now_us();
    f->got = 0;
    f->waiting = 1;
    return send(f->fd, message, (size_t)size, MSG_NOSIGNAL) == size;
}

// Reads a flow's answer: 1 whole, 0 not yet, -1 ended or broken; with `to_end` it is whole with the end.
static int hear(struct flow *f, int to_end) {
    char bytes[LONGEST];
    for (;;) {
        ssize_t got = recv(f->fd, bytes, sizeof bytes, 0);
        if (got > 0) {
            f->got += (size_t)got;
            if (!to_end) return f->got == (size_t)size ? 1 : f->got > (size_t)size ? -1 : 0;
        } else if (got == 0) {
            return to_end && f->got == (size_t)size ? 1 : -1;
        } else {
            return errno == EAGAIN ? 0 : -1;
        }
    }
}

static void open_tcp(struct flow *f, int epoll) {
    f->sent = now_us();
    f->got = 0;
    f->waiting = 0;
    f->fd = start_connect(port, SOCK_NONBLOCK);
    watch(epoll, f->fd, EPOLLIN | EPOLLOUT | EPOLLET, f);
}

// Persistent connections, or one for each message.
static void load_tcp(int count, double seconds, int each) {
    struct flow *all = calloc((size_t)count, sizeof *all);
    int epoll = epoll_create1(0);
    uint64_t requests = 0, errors = 0;
    int64_t start = now_us(), end = start + (int64_t)(seconds * 1e6), now = start;
    for (int i = 0; i < count; i++) open_tcp(&all[i], epoll);
    while (now < end) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, (int)((end - now) / 1000) + 1);
        for (int i = 0; i < ready; i++) {
            struct flow *f = events[i].data.ptr;
            int64_t begun = f->sent;
            int heard = 0;
            if (!f->waiting) {
                if (!(events[i].events & (EPOLLERR | EPOLLHUP)) && !(events[i].events & EPOLLOUT)) continue;
                if (!say(f)) heard = -1;
                if (each) f->sent = begun;  // a connection's time counts from its start
            } else {
                heard = hear(f, each);
            }
            if (heard == 0) continue;
            requests += heard > 0;
            errors += heard < 0;
            if (heard > 0) note_latency(now_us() - f->sent);
            if (heard > 0 && !each && say(f)) continue;
            close(f->fd);
            open_tcp(f, epoll);
        }
        now = now_us();
        for (int i = 0; ready == 0 && i < count; i++) errors += now - all[i].sent > 10 * LOST_US;
    }
    print_result(requests, now - start, errors, 0);
}

// A flow's socket. Its address follows from its number and the proxy's port, so that a later run has the same flows
// and nobody else's.
static int open_udp(int number, int range) {
    uint32_t base = (127u << 24) + ((uint32_t)(range + number / FLOWS_AN_ADDRESS) << 16) + (uint32_t)port;
    struct sockaddr_in from = loopback(base, 20000 + number % FLOWS_AN_ADDRESS);
    struct sockaddr_in to = loopback(INADDR_LOOPBACK, port);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0) fail("socket");
    if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0) fail("bind");
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) fail("connect");
    return fd;
}

// The next flow that nobody waits for; there is one, since the window is smaller than their number.
static struct flow *next_free(struct flow *all, int count, int *turn) {
    do *turn = (*turn + 1) % count;
    while (all[*turn].waiting);
    return &all[*turn];
}

static void load_udp(int count, double seconds, int window) {
    struct flow *all = calloc((size_t)count, sizeof *all);
    int epoll = epoll_create1(0), turn = 0, in_flight = 0;
    uint64_t requests = 0, errors = 0;
    int64_t start = now_us(), end = start + (int64_t)(seconds * 1e6), now = start, swept = start;
    for (int i = 0; i < count; i++) {
        all[i].fd = open_udp(i, 1);
        watch(epoll, all[i].fd, EPOLLIN, &all[i]);
    }
    while (now < end) {
        struct epoll_event events[EVENTS];
        for (; in_flight < window; in_flight++) errors += !say(next_free(all, count, &turn));
        int ready = epoll_wait(epoll, events, EVENTS, SWEEP_MS);
        for (int i = 0; i < ready; i++) {
            struct flow *f = events[i].data.ptr;
            char bytes[LONGEST];
            ssize_t got = recv(f->fd, bytes, sizeof bytes, MSG_DONTWAIT);
            if (!f->waiting) continue;  // an answer that had been given up
            f->waiting = 0;
            in_flight--;
            if (got == size) {
                requests++;
                note_latency(now_us() - f->sent);
            } else {
                errors++;
            }
            if (in_flight < window) {
                errors += !say(next_free(all, count, &turn));
                in_flight++;
            }
        }
        now = now_us();
        if (now - swept < SWEEP_MS * 1000) continue;
        swept = now;
        for (int i = 0; i < count; i++) {
            if (!all[i].waiting || now - all[i].sent < LOST_US) continue;
            all[i].waiting = 0;
            in_flight--;
            errors++;
        }
    }
    print_result(requests, now - start, errors, 0);
}

// Makes FIRST flows, says "first", makes COUNT more at a line, says "all"; at the next line prints a result. A flow's
// socket is closed with its answer: the proxy does not know, and keeps the flow.
static void hold_udp(int count) {
    struct timeval patience = {.tv_usec = LOST_US};
    uint64_t errors = 0;
    for (int i = 0; i < count + FIRST; i++) {
        struct flow f = {.fd = open_udp(i, 64)};
        if (i == FIRST) hand_over("first");
        setsockopt(f.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (!say(&f) || hear(&f, 0) != 1) errors++;
        close(f.fd);
    }
    hand_over("all");
    print_result((uint64_t)(count + FIRST), 0, errors, 0);
}

int main(int argc, char **argv) {
    const char *mode = argc > 2 ? argv[1] : "";
    port = argc > 2 ? atoi(argv[2]) : 0;
    size = argc > 4 ? atoi(argv[4]) : argc > 3 ? atoi(argv[3]) : 0;
    if (size < 0 || size > LONGEST) size = LONGEST;
    memset(message, 'x', sizeof message);
    if (argc == 3 && !strcmp(mode, "echo-tcp")) echo_tcp(0);
    else if (argc == 4 && !strcmp(mode, "echo-tcp-once")) echo_tcp(1);
    else if (argc >= 3 && !strcmp(mode, "echo-udp")) echo_udp(argc - 2, argv + 2);
    else if (argc == 6 && !strcmp(mode, "tcp")) load_tcp(atoi(argv[3]), atof(argv[5]), 0);
    else if (argc == 6 && !strcmp(mode, "tcpconn")) load_tcp(atoi(argv[3]), atof(argv[5]), 1);
    else if (argc == 7 && !strcmp(mode, "udp")) load_udp(atoi(argv[3]), atof(argv[5]), atoi(argv[6]));
    else if (argc == 5 && !strcmp(mode, "hold-udp")) hold_udp(atoi(argv[3]));
    else {
        fputs("usage: see the head of flows.c\n", stderr);
        return 2;
    }
    return 0;
}
