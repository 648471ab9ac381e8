// An origin that makes every request wait for a known time, and remembers of each when it came and when its answer
// left, by the clock of its own host. It shares nothing with the load generator that it judges.
//
//   origin PORT FILE DELAY[,DELAY@PERCENT] [STALL_AFTER STALL_FOR]
//
// Times are microseconds. PERCENT of all requests wait for the second DELAY. No answer leaves for STALL_FOR from
// STALL_AFTER past the first request on. At SIGTERM the record goes to FILE: two 64-bit integers a request, the
// nanosecond at which it came (CLOCK_REALTIME) and how many later its answer left.
//
// "Came" is the kernel's own receive timestamp of the request's last byte (SO_TIMESTAMPNS), so that the time until this
// program runs counts as waiting; "left" is when the send has returned, which on loopback is when the answer stands in
// the client's socket.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, MOST_CONNECTIONS = 4096, MOST_REQUESTS = 4000000, BODY = 128, LONGEST = 4096 };

struct connection {
    int fd, waits;
    int64_t came, due;
    size_t got;
    char request[LONGEST];
};

struct record {
    int64_t came, waited;
};

static struct record *records;
static size_t recorded;
static struct connection *heap[MOST_CONNECTIONS + 1];  // of those that wait, by due; the root is at 1
static size_t heaped;
static char answer[512];
static size_t answer_length;
static int64_t delays[2], stall_after, stall_for, first;
static double second_share;
static volatile sig_atomic_t over;

__attribute__((noreturn)) static void fail(const char *what) {
    fprintf(stderr, "origin: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void end(int signal) {
    (void)signal;
    over = 1;
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void swap(size_t a, size_t b) {
    struct connection *held = heap[a];
    heap[a] = heap[b];
    heap[b] = held;
}

static void push(struct connection *c) {
    if (heaped == MOST_CONNECTIONS) {
        errno = ENOBUFS;
        fail("too many connections wait");
    }
    size_t at = ++heaped;
    heap[at] = c;
    for (; at > 1 && heap[at]->due < heap[at / 2]->due; at /= 2) swap(at, at / 2);
}

static struct connection *pop(void) {
    struct connection *least = heap[1];
    heap[1] = heap[heaped--];
    for (size_t at = 1, child; (child = 2 * at) <= heaped; at = child) {
        if (child < heaped && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[at]->due <= heap[child]->due) break;
        swap(at, child);
    }
    return least;
}

static void drop(struct connection *c) {
    close(c->fd);
    c->fd = -1;
    if (!c->waits) free(c);  // else when its time comes
}

static void reply(struct connection *c) {
    if (recorded == MOST_REQUESTS) {
        errno = ENOSPC;
        fail("the record is full");
    }
    ssize_t sent = send(c->fd, answer, answer_length, MSG_NOSIGNAL);
    records[recorded].came = c->came;
    records[recorded++].waited = now() - c->came;
    if (sent != (ssize_t)answer_length) drop(c);
}

static void answer_what_is_due(void) {
    while (heaped && heap[1]->due <= now()) {
        struct connection *c = pop();
        c->waits = 0;
        if (c->fd < 0) free(c);
        else reply(c);
    }
}

// Draws from a generator of its own (xorshift64*), so that each run has the same delays.
static int64_t drawn(void) {
    static uint64_t state = 88172645463325252u;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    double share = (double)((state * 2685821657736338717u) >> 11) / (double)(1ull << 53);
    return delays[share < second_share];
}

static void came(struct connection *c, int64_t at) {
    c->came = at;
    c->got = 0;
    if (!first) first = at;
    c->due = at + drawn();
    int64_t stalled = first + stall_after, again = stalled + stall_for;
    if (c->due >= stalled && c->due < again) c->due = again;
    if (c->due <= at) {
        reply(c);
        return;
    }
    c->waits = 1;
    push(c);
}

// Takes what is there of a request; a whole one is answered, or waits.
static void take(struct connection *c) {
    char control[CMSG_SPACE(sizeof(struct timespec))];
    struct iovec piece = {c->request + c->got, LONGEST - c->got};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(c->fd, &message, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0 || c->waits || c->got + (size_t)got == LONGEST) {
        drop(c);  // it has ended, or speaks before it was answered, or never ends its head
        return;
    }
    c->got += (size_t)got;
    if (c->got < 4 || memcmp(c->request + c->got - 4, "\r\n\r\n", 4)) return;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_TIMESTAMPNS) continue;
        struct timespec at;
        memcpy(&at, CMSG_DATA(part), sizeof at);
        came(c, (int64_t)at.tv_sec * 1000000000 + at.tv_nsec);
        return;
    }
    errno = ENOTSUP;
    fail("the kernel gave no receive timestamp");
}

static int listening(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    if (fd < 0) fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) < 0) fail("SO_TIMESTAMPNS");
    if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0) fail("bind");
    if (listen(fd, 4096) < 0) fail("listen");
    return fd;
}

static void accept_all(int epoll, int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct connection *c = calloc(1, sizeof *c);
        if (!c) fail("calloc");
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
    }
}

static void serve(int listener) {
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0) fail("epoll");
    while (!over) {
        struct epoll_event events[EVENTS];
        int64_t left = heaped ? heap[1]->due - now() : INT64_C(100000000);
        if (left < 0) left = 0;
        struct timespec patience = {left / 1000000000, left % 1000000000};
        int ready = epoll_pwait2(epoll, events, EVENTS, &patience, NULL);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c) take(c);
            else accept_all(epoll, listener);
        }
        answer_what_is_due();
    }
}

static void write_record(const char *path) {
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(records, sizeof *records, recorded, file) != recorded || fclose(file)) fail(path);
}

int main(int argc, char **argv) {
    double percent = 0, later = 0, usual = 0;
    int read = argc == 4 || argc == 6 ? sscanf(argv[3], "%lf,%lf@%lf", &usual, &later, &percent) : 0;
    if (read != 1 && read != 3) {
        fputs("usage: see the head of origin.c\n", stderr);
        return 2;
    }
    delays[0] = (int64_t)(usual * 1e3);
    delays[1] = (int64_t)(later * 1e3);
    second_share = percent / 100;
    stall_after = argc == 6 ? (int64_t)(atof(argv[4]) * 1e3) : 0;
    stall_for = argc == 6 ? (int64_t)(atof(argv[5]) * 1e3) : 0;
    int length = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%0*d", BODY, BODY, 0);
    answer_length = (size_t)length;
    records = malloc(sizeof *records * MOST_REQUESTS);
    if (!records) fail("malloc");
    memset(records, 0, sizeof *records * MOST_REQUESTS);  // no page is touched first while it measures
    prctl(PR_SET_TIMERSLACK, 1);
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    serve(listening(atoi(argv[1])));
    write_record(argv[2]);
    return 0;
}
