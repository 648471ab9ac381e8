// What both load programs share: times, a histogram of latencies, the result line, non-blocking sockets.
// The result line is that of wrk's script in jobs.py: RESULT requests micros errors p50 p99 resumed.
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SLOWEST_US = 2000000, EVENTS = 256 };

static uint32_t latency_counts[SLOWEST_US + 1];

static inline int64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

__attribute__((noreturn)) static inline void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static inline void note_latency(int64_t us) {
    latency_counts[us < 0 ? 0 : us > SLOWEST_US ? SLOWEST_US : us]++;
}

static inline int64_t percentile(uint64_t total, double share) {
    uint64_t seen = 0;
    for (int64_t us = 0; us <= SLOWEST_US; us++) {
        seen += latency_counts[us];
        if (seen > 0 && (double)seen >= (double)total * share) return us;
    }
    return 0;
}

static inline void print_result(uint64_t requests, int64_t micros, uint64_t errors, uint64_t resumed) {
    printf("RESULT %llu %lld %llu %lld %lld %llu\n", (unsigned long long)requests, (long long)micros,
           (unsigned long long)errors, (long long)percentile(requests, 0.5),
           (long long)percentile(requests, 0.99), (unsigned long long)resumed);
    fflush(stdout);
}

static inline struct sockaddr_in loopback(uint32_t address, int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    at.sin_addr.s_addr = htonl(address);
    return at;
}

// A connection that is being made to 127.0.0.1; `flags` as of socket(2).
static inline int start_connect(int port, int flags) {
    struct sockaddr_in to = loopback(INADDR_LOOPBACK, port);
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0), on = 1;
    if (fd < 0) fail("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) fail("connect");
    return fd;
}

static inline void watch(int epoll, int fd, uint32_t events, void *data) {
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
}

// Says a word to the script that started us and waits for its line.
static inline void hand_over(const char *word) {
    char line[16];
    puts(word);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) exit(0);
}
