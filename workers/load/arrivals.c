/* Telling for many viewers: feedback written, protected and sent without Python.

   arrivals.py writes the same octets, and also what is left out here: where packets came in disorder, and what is sent
   together with a report. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "octets.h"
#include "arrivals.h"

enum {
    HEADER = 20,
    TRANSPORT_FEEDBACK = 205, FORMAT = 15,
    OWN_SSRC = 1,
    LOST = 0, SMALL = 1, LARGE = 2,
    LONGEST_RUN = 0x1FFF,
    ROOM = 1400,
    TRAILER = 256           /* what protection adds: libsrtp's SRTP_MAX_TRAILER_LEN and a word, generously */
};

typedef int (*protect_function)(void *context, void *packet, int *size);

typedef struct {
    uint8_t *at, *end;
    uint32_t status, run;
} writer;

/* 0 without room. */
static int flush(writer *chunks) {
    if (!chunks->run)
        return 1;
    if (chunks->end - chunks->at < 2)
        return 0;
    put16(chunks->at, chunks->status << 13 | chunks->run);
    chunks->at += 2;
    chunks->run = 0;
    return 1;
}

static int add(writer *chunks, uint32_t status, uint32_t run) {
    while (run) {
        if ((chunks->status != status || chunks->run == LONGEST_RUN) && !flush(chunks))
            return 0;
        uint32_t more = LONGEST_RUN - chunks->run;
        chunks->status = status;
        chunks->run += run < more ? run : more;
        run -= run < more ? run : more;
    }
    return 1;
}

static int64_t delta_of(const int64_t *ticks, uint32_t index) {
    int64_t delta = index ? ticks[index] - ticks[index - 1] : ticks[0] & 0xFF;
    return delta > 0x7FFF ? 0x7FFF : delta < -0x8000 ? -0x8000 : delta;
}

static int is_large(int64_t delta) { return delta < 0 || delta > 0xFF; }

/* The whole number of which the lower 16 bits are given, near another. */
static int64_t extended(int64_t number, int64_t near) { return near + (int16_t)(uint16_t)(number - near); }

uint32_t bc_feedback(bc_teller *teller, const int64_t *numbers, const int64_t *ticks, uint32_t count, uint8_t *packet,
                     uint32_t room) {
    if (!count || room < HEADER)
        return 0;
    int64_t base = teller->following < 0 ? numbers[0] & 0xFFFF : teller->following, next = base;
    writer chunks = {.at = packet + HEADER, .end = packet + room};
    for (uint32_t index = 0; index < count; index++) {
        int64_t number = extended(numbers[index], base);
        if (number < next || !add(&chunks, LOST, (uint32_t)(number - next)) ||
            !add(&chunks, is_large(delta_of(ticks, index)) ? LARGE : SMALL, 1))
            return 0;
        next = number + 1;
    }
    if (!flush(&chunks))
        return 0;
    uint8_t *at = chunks.at;
    for (uint32_t index = 0; index < count; index++) {
        int64_t delta = delta_of(ticks, index);
        if (chunks.end - at < 5) /* with padding */
            return 0;
        if (is_large(delta)) {
            put16(at, (uint32_t)(delta & 0xFFFF));
            at += 2;
        } else {
            *at++ = (uint8_t)delta;
        }
    }
    uint32_t size = (uint32_t)(at - packet), padding = -size & 3;
    if (padding) {
        memset(at, 0, padding - 1);
        at[padding - 1] = (uint8_t)padding;
    }
    size += padding;
    packet[0] = (uint8_t)(0x80 | (padding ? 0x20 : 0) | FORMAT);
    packet[1] = TRANSPORT_FEEDBACK;
    put16(packet + 2, size / 4 - 1);
    put32(packet + 4, OWN_SSRC);
    put32(packet + 8, teller->ssrc);
    put16(packet + 12, (uint32_t)(base & 0xFFFF));
    put16(packet + 14, (uint32_t)(next - base));
    put32(packet + 16, (uint32_t)(ticks[0] >> 8 & 0xFFFFFF) << 8 | teller->count);
    teller->following = next;
    teller->count = (teller->count + 1) & 0xFF;
    return size;
}

void bc_tell(void *protect, bc_teller *tellers, const int64_t *who, const int64_t *starts, uint32_t groups,
             const int64_t *numbers, const int64_t *ticks, uint8_t *left) {
    protect_function shield;
    memcpy(&shield, &protect, sizeof shield);
    for (uint32_t group = 0; group < groups; group++) {
        _Alignas(8) uint8_t packet[ROOM + TRAILER];
        bc_teller *teller = &tellers[who[group]];
        left[group] |= group && who[group] == who[group - 1] && left[group - 1];
        if (left[group] || teller->srtp == NULL)
            continue;
        uint32_t count = (uint32_t)(starts[group + 1] - starts[group]);
        int size = (int)bc_feedback(teller, numbers + starts[group], ticks + starts[group], count, packet, ROOM);
        left[group] = !size;
        /* A refused or full socket loses a datagram, as networks do. */
        if (size && !shield(teller->srtp, packet, &size) && size > 0 && size <= (int)sizeof packet)
            (void)!send(teller->socket, packet, (size_t)size, MSG_DONTWAIT);
    }
}
