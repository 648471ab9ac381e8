// A TLS client that makes a connection for each request: wrk keeps its own and never resumes one.
//
//   handshakes full|resumed PORT CONNECTIONS SECONDS   so many at a time; prints the result line of load.h
//   handshakes hold PORT COUNT                         idle connections; see hold()
//
// It offers TLS 1.3 with AES-128-GCM and X25519 only, and looks at what each handshake got, and whether it was
// resumed or not as asked: unequal handshakes are not compared. Resumed ones all offer the first connection's
// ticket. The certificate is not verified; the handshake's signature is.
#include "load.h"
#include <openssl/ssl.h>

enum outcome { WAITING, ENDED, BROKEN };
enum { BODY = 128, GRACE_US = 2000000, FIRST = 8 };

struct connection {
    SSL *ssl;
    int fd, asked;
    size_t got;
    int64_t begun;
    char answer[4096];
};

static const char CLOSING[] = "GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
static const char KEEPING[] = "GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
static SSL_CTX *context;
static SSL_SESSION *ticket;
static int port;

static int keep_ticket(SSL *ssl, SSL_SESSION *session) {
    (void)ssl;
    if (ticket || !SSL_SESSION_is_resumable(session)) return 0;
    ticket = session;
    return 1;
}

static void make_context(void) {
    context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") ||
        !SSL_CTX_set1_groups_list(context, "X25519")) {
        fputs("OpenSSL has no TLS 1.3 with AES-128-GCM and X25519\n", stderr);
        exit(1);
    }
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_ticket);
}

// Opens a connection; `flags` as of socket(2). With `resume` it offers a copy of the ticket.
static void begin(struct connection *c, int flags, int resume) {
    c->begun = now_us();
    c->asked = 0;
    c->got = 0;
    c->fd = start_connect(port, flags);
    c->ssl = SSL_new(context);
    if (!c->ssl || !SSL_set_fd(c->ssl, c->fd)) fail("SSL_new");
    SSL_set_connect_state(c->ssl);
    if (resume) {
        SSL_SESSION *copy = SSL_SESSION_dup(ticket);
        SSL_set_session(c->ssl, copy);
        SSL_SESSION_free(copy);
    }
}

// Lets go of the TLS state but not of the socket. Without the mark OpenSSL would spoil the session.
static void forget_state(struct connection *c) {
    SSL_set_shutdown(c->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(c->ssl);
    c->ssl = NULL;
}

// Ends the program when a handshake is not what is to be compared.
static void check_equal(SSL *ssl, int resume) {
    const char *cipher = SSL_get_cipher_name(ssl);
    int group = SSL_get_negotiated_group(ssl);
    if (strcmp(cipher, "TLS_AES_128_GCM_SHA256") || group != NID_X25519 ||
        SSL_session_reused(ssl) != resume) {
        fprintf(stderr, "a handshake got %s, group %d, %s; wanted was TLS_AES_128_GCM_SHA256, X25519, %s\n",
                cipher, group, SSL_session_reused(ssl) ? "resumed" : "full", resume ? "resumed" : "full");
        exit(1);
    }
}

static int answered(const struct connection *c) {
    return c->got > BODY && !memcmp(c->answer, "HTTP/1.1 200", 12) && c->answer[c->got - 1] == 'x' &&
           c->answer[c->got - BODY] == 'x';
}

// What a call of OpenSSL's means for the connection.
static enum outcome outcome_of(struct connection *c, int result) {
    int error = SSL_get_error(c->ssl, result);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? WAITING : BROKEN;
}

// Goes on with a connection until it waits, has ended, or broke. With `to_end` the server's end is awaited.
static enum outcome advance(struct connection *c, int resume, const char *request, int to_end) {
    int done;
    if (!c->asked) {
        if ((done = SSL_do_handshake(c->ssl)) != 1) return outcome_of(c, done);
        check_equal(c->ssl, resume);
        if (SSL_write(c->ssl, request, (int)strlen(request)) <= 0) return BROKEN;
        c->asked = 1;
    }
    while (to_end || !answered(c)) {
        done = SSL_read(c->ssl, c->answer + c->got, (int)(sizeof c->answer - c->got));
        if (done > 0) {
            c->got += (size_t)done;
        } else if (SSL_get_error(c->ssl, done) == SSL_ERROR_ZERO_RETURN) {
            return answered(c) ? ENDED : BROKEN;
        } else {
            return outcome_of(c, done);
        }
    }
    return ENDED;
}

// One blocking exchange; its socket stays open.
static void exchange(struct connection *c, const char *request) {
    begin(c, 0, 0);
    if (advance(c, 0, request, 0) != ENDED) {
        fputs("the proxy did not answer over TLS\n", stderr);
        exit(1);
    }
}

// So many connections at a time, each for one request, until the time is over.
static void make_connections(int count, double seconds, int resume) {
    struct connection *all = calloc((size_t)count, sizeof *all);
    int epoll = epoll_create1(0);
    uint64_t requests = 0, errors = 0, reused = 0;
    int64_t start = now_us(), end = start + (int64_t)(seconds * 1e6), now = start;
    for (int i = 0; i < count; i++) {
        begin(&all[i], SOCK_NONBLOCK, resume);
        watch(epoll, all[i].fd, EPOLLIN | EPOLLOUT | EPOLLET, &all[i]);
    }
    while (now < end) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, (int)((end - now) / 1000) + 1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            enum outcome outcome = advance(c, resume, CLOSING, 1);
            if (outcome == WAITING && !(events[i].events & EPOLLERR)) continue;
            if (outcome == ENDED) {
                requests++;
                reused += (uint64_t)SSL_session_reused(c->ssl);
                note_latency(now_us() - c->begun);
            } else {
                errors++;
            }
            forget_state(c);
            close(c->fd);
            begin(c, SOCK_NONBLOCK, resume);
            watch(epoll, c->fd, EPOLLIN | EPOLLOUT | EPOLLET, c);
        }
        now = now_us();
        // Who waits for longer than that is lost: the window would end without anybody noticing.
        for (int i = 0; ready == 0 && i < count; i++) errors += now - all[i].begun > GRACE_US;
    }
    print_result(requests, now - start, errors, reused);
}

// Opens FIRST connections, says "first", opens COUNT more at a line, says "all"; at the next line prints a result
// whose errors are those that are not quiet any more. Each has had one answer; no memory is kept here.
static void hold(int count) {
    int *sockets = calloc((size_t)(count + FIRST), sizeof *sockets);
    uint64_t errors = 0;
    char byte;
    for (int i = 0; i < count + FIRST; i++) {
        struct connection c;
        if (i == FIRST) hand_over("first");
        exchange(&c, KEEPING);
        forget_state(&c);
        sockets[i] = c.fd;
    }
    hand_over("all");
    for (int i = 0; i < count + FIRST; i++)
        errors += recv(sockets[i], &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
    print_result((uint64_t)(count + FIRST), 0, errors, 0);
}

int main(int argc, char **argv) {
    const char *mode = argc > 3 ? argv[1] : "";
    struct connection first;
    port = argc > 3 ? atoi(argv[2]) : 0;
    make_context();
    if (argc == 4 && !strcmp(mode, "hold")) {
        hold(atoi(argv[3]));
        return 0;
    }
    if (argc != 5 || (strcmp(mode, "full") && strcmp(mode, "resumed"))) {
        fputs("usage: handshakes full|resumed PORT CONNECTIONS SECONDS | hold PORT COUNT\n", stderr);
        return 2;
    }
    exchange(&first, KEEPING);
    forget_state(&first);
    close(first.fd);
    if (!ticket && !strcmp(mode, "resumed")) {
        fputs("the proxy gave no ticket\n", stderr);
        return 1;
    }
    make_connections(atoi(argv[3]), atof(argv[4]), !strcmp(mode, "resumed"));
    return 0;
}
