/* Reads RTCP that viewers send. The twin in rtcp.py says the same in Python and names the documents.

   The input is hostile: every length is checked before it is used, and the work is bounded by the octets that came and
   by the room that there is, whatever the counters in the packet promise. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "feedback.h"
#include "estimate.h"
#include "octets.h"

enum {
    SENDER_REPORT = 200,
    RECEIVER_REPORT = 201,
    GOODBYE = 203,
    TRANSPORT_FEEDBACK = 205,
    PAYLOAD_FEEDBACK = 206,
    NACK = 1,
    TRANSPORT_WIDE = 15,
    PLI = 1,
    FIR = 4,
    APPLICATION = 15,
    BLOCK = 24                  /* octets of a report block */
};

_Static_assert(BC_MAX_LOST == sizeof((bc_feedback *)0)->lost / sizeof(uint16_t), "the header says it twice");

/* What one compound packet says, until it is known to be well formed. Lists are appended where they stay. */
typedef struct {
    bc_feedback *feedback;
    const uint8_t *block;       /* the last report block about the medium */
    uint64_t remb;
    uint32_t named;             /* packets that NACKs name, of any medium */
    uint8_t remb_is_ours, picture_lost, goodbye;
} compound;

static int read_blocks(compound *found, const uint8_t *body, size_t size, size_t start, uint32_t count) {
    if (start + (size_t)BLOCK * count > size)
        return 0;
    for (const uint8_t *block = body + start; count > 0; count--, block += BLOCK)
        if (get32(block) == found->feedback->ssrc)
            found->block = block;
    return 1;
}

static void name_lost(compound *found, int is_ours, uint32_t sequence) {
    bc_feedback *feedback = found->feedback;
    if (found->named == BC_MAX_LOST)
        return;
    found->named++;
    if (is_ours && feedback->asked < BC_MAX_LOST)
        feedback->lost[feedback->asked++] = (uint16_t)sequence;
}

static void read_nack(compound *found, const uint8_t *body, size_t size) {
    int is_ours = get32(body + 4) == found->feedback->ssrc;
    for (size_t at = 8; at + 4 <= size && found->named < BC_MAX_LOST; at += 4) {
        uint32_t sequence = get16(body + at);
        name_lost(found, is_ours, sequence);
        for (uint32_t bits = get16(body + at + 2); bits; bits >>= 1) {
            sequence++;
            if (bits & 1)
                name_lost(found, is_ours, sequence);
        }
    }
}

static int read_remb(compound *found, const uint8_t *body, size_t size) {
    if (size < 16 || size < 16 + 4 * (size_t)body[12])
        return 0;
    uint32_t value = get32(body + 12), exponent = value >> 18 & 0x3F;
    uint64_t mantissa = value & 0x3FFFF;
    found->remb = mantissa && exponent > 46 ? UINT64_MAX : mantissa << (exponent & 63);
    found->remb_is_ours = 0;
    for (uint32_t source = 0; source < body[12]; source++)
        if (get32(body + 16 + (size_t)4 * source) == found->feedback->ssrc)
            found->remb_is_ours = 1;
    return 1;
}

static uint32_t statuses_of(uint32_t chunk) {
    if (!(chunk & 0x8000))
        return chunk & 0x1FFF;
    return chunk & 0x4000 ? 7 : 14;
}

/* A packet's status: 0 is lost, 1 and 2 are received with so many octets of delta, 3 is reserved. */
static uint32_t status_of(uint32_t chunk, uint32_t index) {
    if (!(chunk & 0x8000))
        return chunk >> 13 & 3;
    return chunk & 0x4000 ? chunk >> (12 - 2 * index) & 3 : chunk >> (13 - index) & 1;
}

static void note(bc_feedback *feedback, uint32_t sequence, uint32_t ticks, uint8_t received) {
    if (feedback->arrived < feedback->capacity)
        feedback->arrivals[feedback->arrived++] = (bc_arrival){ticks, (uint16_t)sequence, received, 0};
}

/* Find where the deltas start, and that all are there. NULL when not, or when a status is reserved. */
static const uint8_t *find_deltas(const uint8_t *at, const uint8_t *end, uint32_t left) {
    size_t octets = 0;
    while (left > 0) {
        if (end - at < 2)
            return NULL;
        uint32_t chunk = get16(at), count = statuses_of(chunk);
        if (count > left)
            count = left;
        uint32_t alike = chunk & 0x8000 ? 1 : count;
        for (uint32_t index = 0; index < count; index += alike) {
            uint32_t status = status_of(chunk, index);
            if (status == 3)
                return NULL;
            octets += (size_t)status * alike;
        }
        left -= count;
        at += 2;
    }
    return (size_t)(end - at) < octets ? NULL : at;
}

static int read_arrivals(compound *found, const uint8_t *body, size_t size) {
    if (size < 16)
        return 0;
    bc_feedback *feedback = found->feedback;
    const uint8_t *chunks = body + 16;
    uint32_t sequence = get16(body + 8), left = get16(body + 10);
    uint32_t ticks = get32(body + 12) & 0xFFFFFF00; /* 64 ms are 256 ticks, and the counter stands below */
    const uint8_t *delta = find_deltas(chunks, body + size, left);
    if (delta == NULL)
        return 0;
    for (; left > 0; chunks += 2) {
        uint32_t chunk = get16(chunks), count = statuses_of(chunk);
        if (count > left)
            count = left;
        left -= count;
        for (uint32_t index = 0; index < count; index++) {
            uint32_t status = status_of(chunk, index);
            if (status == 0) {
                if (feedback->arrived == feedback->capacity && !(chunk & 0x8000)) {
                    sequence += count - index; /* a run of losses costs no octets, so it may cost no time */
                    break;
                }
                note(feedback, sequence++, 0, 0);
                continue;
            }
            ticks += status == 1 ? delta[0] : (uint32_t)(int32_t)(int16_t)get16(delta);
            delta += status;
            note(feedback, sequence++, ticks, 1);
        }
    }
    return 1;
}

static int read_feedback(compound *found, uint32_t kind, uint32_t format, const uint8_t *body, size_t size) {
    uint32_t ssrc = found->feedback->ssrc;
    if (size < 8)
        return 0;
    if (kind == TRANSPORT_FEEDBACK) {
        if (format == NACK)
            read_nack(found, body, size);
        return format == TRANSPORT_WIDE ? read_arrivals(found, body, size) : 1;
    }
    if (format == PLI) {
        found->picture_lost |= get32(body + 4) == ssrc;
    } else if (format == FIR) {
        for (size_t at = 8; at + 8 <= size; at += 8)
            found->picture_lost |= get32(body + at) == ssrc;
    } else if (format == APPLICATION && size >= 12 && memcmp(body + 8, "REMB", 4) == 0) {
        return read_remb(found, body, size);
    }
    return 1;
}

static int read_packet(compound *found, const uint8_t *packet, size_t size) {
    uint32_t kind = packet[1], count = packet[0] & 31;
    const uint8_t *body = packet + 4;
    size -= 4;
    switch (kind) {
    case RECEIVER_REPORT:
        return read_blocks(found, body, size, 4, count);
    case SENDER_REPORT:
        return read_blocks(found, body, size, 24, count);
    case GOODBYE:
        found->goodbye = 1;
        return 1;
    case TRANSPORT_FEEDBACK:
    case PAYLOAD_FEEDBACK:
        return read_feedback(found, kind, count, body, size);
    default:
        return 1;
    }
}

static int read_compound(compound *found, const uint8_t *packet, size_t length) {
    if (length < 4)
        return 0;
    while (length > 0) {
        if (length < 4)
            return 0;
        size_t size = 4 + 4 * (size_t)get16(packet + 2), padding = 0;
        if (packet[0] >> 6 != 2 || size > length)
            return 0;
        if (packet[0] & 0x20) {
            padding = packet[size - 1];
            if (padding == 0 || padding > size - 4) /* Chromium pads transport-wide feedback by single octets */
                return 0;
        }
        if (!read_packet(found, packet, size - padding))
            return 0;
        packet += size;
        length -= size;
    }
    return 1;
}

int bc_reduce(const uint8_t *packet, size_t length, double now, bc_feedback *feedback) {
    compound found = {.feedback = feedback};
    uint16_t asked = feedback->asked;
    uint32_t arrived = feedback->arrived;
    if (!read_compound(&found, packet, length)) {
        feedback->asked = asked;
        feedback->arrived = arrived;
        return 0;
    }
    if (found.block != NULL) {
        uint32_t loss = get32(found.block + 4), lost = loss & 0xFFFFFF;
        feedback->fraction_lost = (uint8_t)(loss >> 24);
        feedback->cumulative_lost = (int32_t)lost - (lost & 0x800000 ? 0x1000000 : 0);
        feedback->highest_sequence = get32(found.block + 8);
        feedback->jitter = get32(found.block + 12);
        feedback->lsr = get32(found.block + 16);
        feedback->dlsr = get32(found.block + 20);
        feedback->reported = 1;
        feedback->reported_at = now;
    }
    if (found.remb_is_ours) {
        feedback->remb = found.remb;
        feedback->estimated = 1;
        feedback->remb_at = now;
    }
    if (feedback->path != NULL) {
        bc_path_arrived(feedback->path, now, feedback->arrivals, feedback->arrived);
        feedback->arrived = 0;
    }
    feedback->pictures_lost += found.picture_lost;
    feedback->goodbye |= found.goodbye;
    return 1;
}
