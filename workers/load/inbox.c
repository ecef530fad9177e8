/* Reading for many viewers: a system call for each of them, and a look at each packet while it is still warm.

   inbox.py says the same in Python. Servers are hostile here as viewers are there: every length is checked. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "octets.h"
#include "inbox.h"

enum {
    BATCH = 16,             /* messages that one call takes from a socket at most */
    WHOLE = 2048, JOINED = 65536,
    PIECES = 128,           /* datagrams that the kernel leaves together at most (UDP_MAX_SEGMENTS); more are none */
    CONTROL = 128,
    APART = 4096 + 64,      /* so that not all messages begin in the same lines of the cache */
    HEADER = 12,
    ONE_BYTE_PROFILE = 0xBEDE,
    UDP = 17, GRO = 104     /* include/uapi/linux/udp.h */
};

struct bc_reader {
    uint32_t slot;
    uint8_t *arena;
    struct mmsghdr messages[BATCH];
    struct iovec vectors[BATCH];
    _Alignas(struct cmsghdr) uint8_t controls[BATCH][CONTROL];
};

bc_reader *bc_reader_open(int joined) {
    bc_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL)
        return NULL;
    reader->slot = joined ? JOINED : WHOLE;
    size_t stride = reader->slot + APART;
    reader->arena = malloc(BATCH * stride);
    if (reader->arena == NULL) {
        free(reader);
        return NULL;
    }
    for (uint32_t index = 0; index < BATCH; index++) {
        reader->vectors[index] = (struct iovec){reader->arena + index * stride, reader->slot};
        reader->messages[index].msg_hdr.msg_iov = &reader->vectors[index];
        reader->messages[index].msg_hdr.msg_iovlen = 1;
        reader->messages[index].msg_hdr.msg_control = reader->controls[index];
    }
    return reader;
}

void bc_reader_close(bc_reader *reader) {
    free(reader->arena);
    free(reader);
}

uint32_t bc_least_space(const bc_reader *reader) { return BATCH * reader->slot; }

uint32_t bc_least_rows(void) { return BATCH * PIECES; }

/* The number in an RTP packet's element of this id (RFC 8285 section 4.2); -1 when there is none. */
static int64_t transport_number(const uint8_t *packet, uint32_t size, uint32_t id) {
    uint32_t at = HEADER + 4 * (packet[0] & 15u);
    if (!id || !(packet[0] & 0x10) || size < at + 4 || get16(packet + at) != ONE_BYTE_PROFILE)
        return -1;
    uint32_t end = at + 4 + 4 * get16(packet + at + 2);
    if (size < end)
        return -1;
    for (at += 4; at < end;) {
        if (packet[at] == (id << 4 | 1))
            return at + 3 <= end ? (int64_t)get16(packet + at + 1) : -1;
        at += packet[at] ? 2 + (packet[at] & 15u) : 1;
    }
    return -1;
}

static int is_rtp(const uint8_t *data, uint32_t size) {
    return size >= HEADER && data[0] >> 6 == 2 && (data[1] < 192 || data[1] > 223);
}

static void take(bc_line *line, uint32_t viewer, const uint8_t *data, uint32_t size, double arrival, bc_rows *rows) {
    uint32_t row = rows->rows++;
    int rtp = is_rtp(data, size), keep = !rtp;
    rows->viewer[row] = viewer;
    rows->size[row] = size;
    rows->arrival[row] = arrival;
    rows->rtp[row] = (uint8_t)rtp;
    rows->marker[row] = rtp && data[1] & 0x80;
    rows->sequence[row] = rtp ? get16(data + 2) : 0;
    rows->timestamp[row] = rtp ? get32(data + 4) : 0;
    rows->ssrc[row] = rtp ? get32(data + 8) : 0;
    rows->number[row] = rtp ? transport_number(data, size, line->transport) : -1;
    if (rtp && line->kept && rows->ssrc[row] == line->media) {
        line->kept--;
        keep = 1;
    }
    rows->place[row] = -1;
    if (keep || (line->resent && rows->ssrc[row] == line->resent)) {
        memcpy(rows->memory + rows->used, data, size);
        rows->place[row] = rows->used;
        rows->used += size;
    }
}

/* When a message arrived, and the octets of each datagram in it, where the kernel says so. */
static void look(struct msghdr *header, double ahead, double *arrival, uint32_t *piece) {
    for (struct cmsghdr *said = CMSG_FIRSTHDR(header); said != NULL; said = CMSG_NXTHDR(header, said)) {
        struct timespec at;
        int size;
        if (said->cmsg_level == SOL_SOCKET && said->cmsg_type == SO_TIMESTAMPNS &&
            said->cmsg_len >= CMSG_LEN(sizeof at)) {
            memcpy(&at, CMSG_DATA(said), sizeof at);
            *arrival = (double)at.tv_sec + (double)at.tv_nsec * 1e-9 - ahead;
        } else if (said->cmsg_level == UDP && said->cmsg_type == GRO && said->cmsg_len >= CMSG_LEN(sizeof size)) {
            memcpy(&size, CMSG_DATA(said), sizeof size);
            if (size > 0)
                *piece = (uint32_t)size;
        }
    }
}

/* Returns when the message arrived. */
static double cut(bc_line *line, uint32_t viewer, struct mmsghdr *message, double now, double ahead, bc_rows *rows) {
    const uint8_t *data = message->msg_hdr.msg_iov->iov_base;
    uint32_t size = message->msg_len, piece = size;
    look(&message->msg_hdr, ahead, &now, &piece);
    for (uint32_t at = 0, pieces = 0; at < size && pieces < PIECES; at += piece, pieces++)
        take(line, viewer, data + at, size - at < piece ? size - at : piece, now, rows);
    return now;
}

uint32_t bc_read(bc_reader *reader, bc_line *lines, uint32_t count, uint32_t from, double now, double until,
                 double ahead, bc_rows *rows) {
    for (uint32_t viewer = from; viewer < count;) {
        if (lines[viewer].socket < 0) {
            viewer++;
            continue;
        }
        if (rows->room - rows->rows < bc_least_rows() || rows->space - rows->used < bc_least_space(reader))
            return viewer;
        for (uint32_t index = 0; index < BATCH; index++)
            reader->messages[index].msg_hdr.msg_controllen = CONTROL;
        /* Nothing waits, or an ICMP error does: either way there is nothing to take. */
        int taken = recvmmsg(lines[viewer].socket, reader->messages, BATCH, MSG_DONTWAIT, NULL);
        double arrival = now;
        for (int index = 0; index < taken; index++)
            arrival = cut(&lines[viewer], viewer, &reader->messages[index], now, ahead, rows);
        if (taken < BATCH || arrival > until)
            viewer++;
    }
    return count;
}
