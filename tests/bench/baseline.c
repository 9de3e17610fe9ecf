/* The baseline of the benchmark: a plain C program that copies a stream of datagrams to stdout.
 *
 *   baseline recv PORT BUFFER       one recv and one write for each datagram
 *   baseline recvmmsg PORT BUFFER   one recvmmsg and one write for all datagrams that are queued (at most 64)
 *
 * Binds 127.0.0.1:PORT, asks for a receive buffer of BUFFER bytes, writes to stdout until it is killed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DATAGRAM = 2048, BATCH = 64 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void put(const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t written = write(STDOUT_FILENO, bytes, length);
        if (written < 0)
            fail("write");
        bytes += written;
        length -= (size_t)written;
    }
}

static void one_by_one(int udp) {
    static char datagram[DATAGRAM];
    for (;;) {
        ssize_t length = recv(udp, datagram, sizeof datagram, 0);
        if (length < 0)
            fail("recv");
        put(datagram, (size_t)length);
    }
}

static void in_batches(int udp) {
    static char datagrams[BATCH][DATAGRAM], together[BATCH * DATAGRAM];
    static struct iovec places[BATCH];
    static struct mmsghdr headers[BATCH];
    for (int i = 0; i < BATCH; i++) {
        places[i] = (struct iovec){datagrams[i], DATAGRAM};
        headers[i].msg_hdr = (struct msghdr){.msg_iov = &places[i], .msg_iovlen = 1};
    }
    for (;;) {
        int count = recvmmsg(udp, headers, BATCH, MSG_WAITFORONE, NULL);
        if (count < 0)
            fail("recvmmsg");
        size_t length = 0;
        for (int i = 0; i < count; i++) {
            memcpy(together + length, datagrams[i], headers[i].msg_len);
            length += headers[i].msg_len;
        }
        put(together, length);
    }
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: baseline recv|recvmmsg PORT BUFFER\n");
        return 2;
    }
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    int buffer = atoi(argv[3]);
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[2]))};
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (udp < 0 || setsockopt(udp, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer) < 0)
        fail("socket");
    if (bind(udp, (struct sockaddr *)&local, sizeof local) < 0)
        fail("bind");
    if (strcmp(argv[1], "recvmmsg") == 0)
        in_batches(udp);
    else
        one_by_one(udp);
}
