/* Drives the load generator's kernel under AddressSanitizer and UBSan with hostile datagrams and arrivals.

   Usage: harness ROUNDS SEED. Prints nothing and returns 0 when every promise held. The network and the cipher are
   replaced by ones that lie at random; every column has exactly the room that is told. */

#define _GNU_SOURCE
#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

static int fake_recvmmsg(int, struct mmsghdr *, unsigned, int, struct timespec *);
static ssize_t fake_send(int, const void *, size_t, int);
#define recvmmsg fake_recvmmsg
#include "inbox.c"
#undef recvmmsg
#define HEADER TELLERS_HEADER
#define send fake_send
#include "arrivals.c"
#undef send

#include "noise.h"
#include "require.h"

enum { LINES = 5, ARRIVALS = 400, ADDED = 20 };

/* --- reading */

static uint32_t waiting[LINES], datagrams;
static uint32_t shredded; /* whether all is cut into single octets */
static int lied; /* about the length of what it said, so that nobody knows what of it was understood */

static void *said(uint8_t *control, size_t *used, int level, int type, size_t size) {
    struct cmsghdr *one = (struct cmsghdr *)(control + *used);
    one->cmsg_level = level;
    one->cmsg_type = type;
    one->cmsg_len = CMSG_LEN(size);
    if (!draw(20)) {
        one->cmsg_len = draw(CMSG_LEN(size));
        lied = 1;
    }
    *used += CMSG_SPACE(size);
    return CMSG_DATA(one);
}

static void fill(uint8_t *data, uint32_t size) {
    static const uint8_t firsts[] = {0, 1, 20, 63, 0x80, 0x90, 0x9F, 0xBF, 0xC0};
    for (uint32_t octet = 0; octet < size; octet++)
        data[octet] = (uint8_t)draw(draw(2) ? 256 : 4);
    if (size)
        data[0] = firsts[draw(sizeof firsts)];
    uint32_t at = 12 + 4 * (size ? data[0] & 15u : 0);
    if (size >= at + 4 && draw(4)) {
        put16(data + at, 0xBEDE);
        put16(data + at + 2, draw(4) ? draw(5) : draw(65536));
    }
}

static int fake_recvmmsg(int socket, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
    REQUIRE(socket >= 0 && socket < LINES && flags == MSG_DONTWAIT && timeout == NULL);
    if (!waiting[socket] || !draw(10)) {
        waiting[socket] = 0;
        return -1;
    }
    unsigned taken = 0;
    for (; taken < count && waiting[socket]; taken++, waiting[socket]--) {
        struct msghdr *header = &messages[taken].msg_hdr;
        REQUIRE(header->msg_iovlen == 1 && header->msg_controllen == CONTROL);
        uint32_t room = (uint32_t)header->msg_iov->iov_len, size = draw(room > WHOLE ? 40 : 3) ? draw(200) : draw(room + 1), piece = size;
        uint8_t *data = header->msg_iov->iov_base;
        ASAN_UNPOISON_MEMORY_REGION(data, room);
        ASAN_UNPOISON_MEMORY_REGION(header->msg_control, CONTROL);
        size_t used = 0;
        fill(data, size);
        if (draw(2)) {
            struct timespec at = {draw(1000), draw(1000000000)};
            memcpy(said(header->msg_control, &used, SOL_SOCKET, SO_TIMESTAMPNS, sizeof at), &at, sizeof at);
        }
        if (shredded || draw(2)) {
            int cut = shredded ? 1 : draw(10) ? (int)draw(size + 2) : (int)draw(3) - 1;
            memcpy(said(header->msg_control, &used, UDP, GRO, sizeof cut), &cut, sizeof cut);
            piece = cut > 0 ? (uint32_t)cut : size;
        }
        header->msg_controllen = used;
        ASAN_POISON_MEMORY_REGION((uint8_t *)header->msg_control + used, CONTROL - used);
        ASAN_POISON_MEMORY_REGION(data + size, room - size);
        messages[taken].msg_len = size;
        uint32_t pieces = size ? (size + piece - 1) / piece : 0;
        datagrams += pieces < PIECES ? pieces : PIECES;
    }
    return (int)taken;
}

static void *column(size_t room, size_t size) {
    void *memory = malloc(room * size);
    REQUIRE(memory);
    return memory;
}

static void read_some(void) {
    bc_reader *reader = bc_reader_open((int)draw(2));
    REQUIRE(reader);
    uint32_t room = bc_least_rows() + draw(1000), space = bc_least_space(reader) + draw(5000), all = 0;
    bc_rows rows = {
        .viewer = column(room, 8), .size = column(room, 8), .sequence = column(room, 8),
        .timestamp = column(room, 8), .ssrc = column(room, 8), .number = column(room, 8), .place = column(room, 8),
        .arrival = column(room, 8), .rtp = column(room, 1), .marker = column(room, 1),
        .memory = column(space, 1), .room = room, .space = space,
    };
    bc_line lines[LINES];
    for (uint32_t line = 0; line < LINES; line++) {
        lines[line] = (bc_line){draw(4) ? (int32_t)line : -1, draw(15), draw(3), draw(3), draw(2) ? draw(9) : UINT64_MAX};
        waiting[line] = lines[line].socket < 0 ? 0 : draw(40);
    }
    double until = draw(3) ? 2000.0 : draw(1000);
    datagrams = 0;
    lied = 0;
    shredded = !draw(8);
    for (uint32_t at = 0; at < LINES;) {
        uint32_t from = at;
        rows.rows = rows.used = 0;
        at = bc_read(reader, lines, LINES, at, 5.0, until, 1.0, &rows);
        REQUIRE(rows.rows <= room && rows.used <= space);
        REQUIRE(at == LINES || rows.rows || rows.used);
        for (uint32_t row = 0; row < rows.rows; row++) {
            REQUIRE(rows.viewer[row] >= from && rows.viewer[row] <= at && rows.viewer[row] < LINES);
            REQUIRE(!row || rows.viewer[row] >= rows.viewer[row - 1]);
            REQUIRE(rows.size[row] > 0 && rows.number[row] >= -1 && rows.number[row] <= 0xFFFF);
            REQUIRE(rows.place[row] >= -1 && (rows.place[row] < 0 || rows.place[row] + rows.size[row] <= rows.used));
            REQUIRE(rows.rtp[row] ? rows.size[row] >= 12 : rows.place[row] >= 0 && rows.number[row] == -1);
        }
        all += rows.rows;
    }
    for (uint32_t line = 0; line < LINES; line++)
        REQUIRE(!waiting[line] || until < 2000.0);
    REQUIRE(lied || all == datagrams);
    free(rows.viewer), free(rows.size), free(rows.sequence), free(rows.timestamp), free(rows.ssrc), free(rows.number);
    free(rows.place), free(rows.arrival), free(rows.rtp), free(rows.marker), free(rows.memory);
    bc_reader_close(reader);
}

/* --- telling */

static uint32_t sent;

static int fake_protect(void *context, void *packet, int *size) {
    REQUIRE(context == &noise && *size % 4 == 0 && get16((uint8_t *)packet + 2) * 4 + 4 == (uint32_t)*size);
    memset((uint8_t *)packet + *size, 1, ADDED);
    *size += ADDED;
    return !draw(10);
}

static ssize_t fake_send(int socket, const void *packet, size_t size, int flags) {
    REQUIRE(socket == 7 && flags == MSG_DONTWAIT && ((const uint8_t *)packet)[size - 1] == 1);
    sent++;
    return draw(2) ? (ssize_t)size : -1;
}

static void tell_some(void) {
    int64_t *numbers = column(ARRIVALS, 8), *ticks = column(ARRIVALS, 8), *who = column(LINES, 8);
    int64_t *starts = column(LINES + 1, 8), number = draw(70000), now = draw(1 << 30);
    uint8_t *left = column(LINES, 1), before[LINES];
    bc_teller tellers[LINES];
    uint32_t rows = 0, groups = 1 + draw(LINES), wild = draw(3);
    for (uint32_t group = 0; group < groups; group++) {
        uint32_t until = rows + 1 + draw((ARRIVALS - rows) / LINES);
        tellers[group] = (bc_teller){(int64_t)draw(70000) - 1, draw(9) ? &noise : NULL, draw(99), 7, draw(256)};
        who[group] = group;
        starts[group] = rows;
        before[group] = left[group] = !draw(6);
        number = tellers[group].following < 0 || draw(4) == 0 ? number : tellers[group].following;
        for (; rows < until; rows++) {
            numbers[rows] = number & 0xFFFF;
            ticks[rows] = now;
            number += wild ? 1 + draw(draw(4) ? 2 : 0x3000) : (int64_t)draw(100) - 20;
            now += draw(draw(4) ? 200 : 100000) - (draw(4) ? 0 : 100);
        }
    }
    starts[groups] = rows;
    sent = 0;
    protect_function shield = fake_protect;
    void *pointer;
    memcpy(&pointer, &shield, sizeof pointer);
    bc_teller was[LINES];
    memcpy(was, tellers, sizeof was);
    bc_tell(pointer, tellers, who, starts, groups, numbers, ticks, left);
    uint32_t written = 0;
    for (uint32_t group = 0; group < groups; group++) {
        int moved = memcmp(&was[group], &tellers[group], sizeof was[group]) != 0;
        REQUIRE(moved == (!left[group] && tellers[group].srtp != NULL) && left[group] >= before[group]);
        written += (uint32_t)moved;
        /* Any room does, or is too little; it is never passed. */
        uint32_t room = draw(1500);
        uint8_t *packet = column(room ? room : 1, 1);
        bc_teller again = was[group];
        uint32_t size = bc_feedback(&again, numbers + starts[group], ticks + starts[group],
                                    (uint32_t)(starts[group + 1] - starts[group]), packet, room);
        REQUIRE(size <= room && size % 4 == 0 && (size || memcmp(&again, &was[group], sizeof again) == 0));
        free(packet);
    }
    REQUIRE(sent <= written);
    free(numbers), free(ticks), free(who), free(starts), free(left);
}

int main(int count, char **arguments) {
    REQUIRE(count == 3);
    noise = strtoull(arguments[2], NULL, 10) * 2 + 1;
    for (int number = 0; number < atoi(arguments[1]); number++) {
        read_some();
        tell_some();
    }
    return 0;
}
