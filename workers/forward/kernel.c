/* The fan-out kernel: one encoded frame to many viewers in one call, without Python.

   The twin in fanout.py says the same in Python, byte for byte; formats and constants are explained in packets.py.
   Nobody's failure reaches anybody else: what a viewer could not be sent is counted in its own `drops`. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "cipher.h"
#include "feedback.h"
#include "estimate.h"
#include "kernel.h"
#include "octets.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum {
    HEADER = 12,
    DESCRIPTOR = 6,
    CHUNK = 1132,               /* packets.CHUNK_SIZE */
    RUN = 48,                   /* fanout.MAX_BATCH: datagrams of one viewer in one send */
    MAX_EXTENSIONS = 32,
    MAX_PREFIX = HEADER + MAX_EXTENSIONS + DESCRIPTOR,
    MAX_TAG = 16,
    CIPHER_TAG = 16,            /* bc_seal's */
    NEAR = BC_NEAR - DESCRIPTOR, /* octets of a chunk that it reads from the packet */
    MAX_STRIDE = MAX_PREFIX + CHUNK + MAX_TAG,
    MAX_PACKETS = 4096,         /* of a frame: more than the frame link carries */
    MESSAGES = 64,              /* in one sendmmsg */
    ARENA = 192 * 1024,         /* stays in the second-level cache */
    TRAILER = 144 + 16,         /* libsrtp's SRTP_MAX_TRAILER_LEN, should it ever write more than its tag */
    RTP_CLOCK = 90000,
    PATIENCE = 3000000          /* nanoseconds that one call waits for full socket buffers, in all */
};

typedef int (*protect_function)(void *context, void *packet, int *size);

/* A run of packets to one viewer: all of `stride` octets but the last one, which may be shorter. */
typedef struct {
    bc_outlet *outlet;
    double at;                  /* monotonic seconds */
    uint32_t packets;
    uint32_t stride;
    uint32_t overhead;          /* octets of a packet that are not RTP payload */
    uint16_t transport;         /* transport-wide number of the first packet */
    bc_sound *sound;            /* NULL: they are of pictures */
} run;

struct bc_kernel {
    protect_function protect;
    int socket;
    uint32_t messages;
    uint32_t used;              /* octets of the arena */
    int64_t patience;
    int64_t sent;
    struct mmsghdr headers[MESSAGES];
    struct iovec vectors[MESSAGES];
    run runs[MESSAGES];
    _Alignas(struct cmsghdr) uint8_t ancillary[MESSAGES][CMSG_SPACE(sizeof(uint16_t))];
    uint8_t arena[ARENA + TRAILER];
};

_Static_assert(MAX_PREFIX <= TRAILER, "a prefix fits behind the last packet");
_Static_assert(RUN <= MESSAGES && RUN * MAX_STRIDE <= ARENA && RUN * MAX_STRIDE <= 65507, "a run fits everywhere");

/* libc's, which beats the `rep movs` that compilers make of sizes of which they know something. */
static void *(*volatile const copy)(void *to, const void *from, size_t size) = memcpy;

static int64_t nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

bc_kernel *bc_open(void *protect) {
    bc_kernel *kernel = calloc(1, sizeof *kernel);
    if (kernel == NULL)
        return NULL;
    memcpy(&kernel->protect, &protect, sizeof protect);
    for (int number = 0; number < MESSAGES; number++) {
        struct msghdr *header = &kernel->headers[number].msg_hdr;
        header->msg_iov = &kernel->vectors[number];
        header->msg_iovlen = 1;
        struct cmsghdr *segments = (struct cmsghdr *)kernel->ancillary[number];
        segments->cmsg_level = IPPROTO_UDP;
        segments->cmsg_type = UDP_SEGMENT;
        segments->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    }
    return kernel;
}

void bc_close(bc_kernel *kernel) { free(kernel); }

/* `packets` packets of a run left, of so many octets in all; `before` of them had left before. */
static void credit(bc_kernel *kernel, const run *run, uint32_t before, uint32_t packets, size_t octets) {
    bc_outlet *outlet = run->outlet;
    bc_sound *sound = run->sound;
    *(sound ? &sound->packets : &outlet->packets) += packets;
    *(sound ? &sound->octets : &outlet->octets) += octets - (uint64_t)packets * run->overhead;
    kernel->sent += packets;
    if (outlet->path != NULL && (sound ? sound->transport_at : outlet->transport_at))
        bc_path_sent(outlet->path, run->at, (uint16_t)(run->transport + before), packets, (uint32_t)octets);
}

/* Wait until the socket takes more, as long as this call may still wait. */
static int wait_for_room(bc_kernel *kernel) {
    if (kernel->patience <= 0)
        return 0;
    struct pollfd entry = {.fd = kernel->socket, .events = POLLOUT};
    int64_t before = nanoseconds();
    int ready = poll(&entry, 1, (int)((kernel->patience + 999999) / 1000000));
    /* At least a microsecond, so that a socket that is ready and refuses cannot hold us. */
    kernel->patience -= nanoseconds() - before + 1000;
    return ready > 0;
}

/* A run, one datagram at a time. */
static void send_singly(bc_kernel *kernel, uint32_t number) {
    const run *run = &kernel->runs[number];
    const struct iovec *vector = &kernel->vectors[number];
    bc_outlet *outlet = run->outlet;
    uint32_t place = 0;
    for (size_t start = 0; start < vector->iov_len; start += run->stride, place++) {
        size_t size = vector->iov_len - start < run->stride ? vector->iov_len - start : run->stride;
        ssize_t sent;
        do
            sent = sendto(kernel->socket, (uint8_t *)vector->iov_base + start, size, MSG_DONTWAIT,
                          (const struct sockaddr *)outlet->address, outlet->address_size);
        while (sent < 0 && (errno == EINTR || ((errno == EAGAIN || errno == EWOULDBLOCK) && wait_for_room(kernel))));
        if (sent < 0)
            outlet->drops++;
        else
            credit(kernel, run, place, 1, size);
    }
}

static int refuses_segments(int error) {
    return error == EINVAL || error == EIO || error == EMSGSIZE || error == EOPNOTSUPP;
}

/* Send everything that was gathered for the current socket. */
static void flush(bc_kernel *kernel) {
    uint32_t done = 0;
    while (done < kernel->messages) {
        int sent = sendmmsg(kernel->socket, kernel->headers + done, kernel->messages - done, MSG_DONTWAIT);
        for (; sent > 0; sent--, done++)
            credit(kernel, &kernel->runs[done], 0, kernel->runs[done].packets, kernel->vectors[done].iov_len);
        if (sent == 0)
            continue;
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (wait_for_room(kernel))
                continue;
            for (; done < kernel->messages; done++)
                kernel->runs[done].outlet->drops += kernel->runs[done].packets;
            break;
        }
        if (kernel->runs[done].packets > 1 && refuses_segments(errno)) {
            kernel->runs[done].outlet->segmentation = 0;
            send_singly(kernel, done);
        } else {
            kernel->runs[done].outlet->drops += kernel->runs[done].packets;
        }
        done++;
    }
    kernel->messages = 0;
    kernel->used = 0;
}

static void gather(bc_kernel *kernel, const run *run, uint8_t *data, uint32_t size) {
    uint32_t number = kernel->messages++, packets = run->packets, stride = run->stride;
    bc_outlet *outlet = run->outlet;
    struct msghdr *header = &kernel->headers[number].msg_hdr;
    kernel->vectors[number] = (struct iovec){.iov_base = data, .iov_len = size};
    kernel->runs[number] = *run;
    header->msg_name = outlet->address;
    header->msg_namelen = outlet->address_size;
    if (packets > 1) {
        uint16_t segment = (uint16_t)stride;
        memcpy(CMSG_DATA((struct cmsghdr *)kernel->ancillary[number]), &segment, sizeof segment);
        header->msg_control = kernel->ancillary[number];
        header->msg_controllen = sizeof kernel->ancillary[number];
    } else {
        header->msg_control = NULL;
        header->msg_controllen = 0;
    }
}

/* Whether a stream's packets begin so that no array is left. */
static int begins(uint32_t payload_type, uint32_t size, uint32_t time_at, uint32_t transport_at) {
    return payload_type < 128 && size <= MAX_EXTENSIONS && size % 4 == 0 && (time_at == 0 || time_at + 3 <= size) &&
           (transport_at == 0 || transport_at + 2 <= size);
}

/* Whether the state can be used without leaving any array. */
static int is_sound(const bc_outlet *outlet) {
    return outlet->srtp != NULL && outlet->records != NULL && outlet->capacity > 0 && outlet->tag_size <= MAX_TAG &&
           begins(outlet->payload_type, outlet->extensions_size, outlet->time_at, outlet->transport_at) &&
           (outlet->cipher == NULL || outlet->tag_size == CIPHER_TAG) &&
           outlet->address_size >= sizeof(struct sockaddr_in) && outlet->address_size <= sizeof outlet->address;
}

static double time_of(const bc_frame *frame, int matters) {
    if (frame->frozen || !matters)
        return frame->now;
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* abs-send-time */
static void put_stamp(uint8_t *at, double wall) {
    uint32_t stamp = wall > 0.0 && wall < 1e12 ? (uint32_t)((uint64_t)(wall * 262144.0) & 0xFFFFFF) : 0;
    at[0] = (uint8_t)(stamp >> 16);
    put16(at + 1, stamp);
}

/* Write what stands in front of a chunk of the frame that was begun last; return its size. */
static uint32_t write_prefix(const bc_outlet *outlet, const bc_frame *frame, double now, uint8_t *prefix) {
    const bc_record *record = &outlet->records[(outlet->recorded - 1) % outlet->capacity];
    uint32_t extensions = outlet->extensions_size;
    prefix[0] = extensions ? 0x90 : 0x80;
    prefix[1] = outlet->payload_type;
    put32(prefix + 4, record->timestamp);
    put32(prefix + 8, outlet->ssrc);
    memcpy(prefix + HEADER, outlet->extensions, extensions);
    if (outlet->time_at)
        put_stamp(prefix + HEADER + outlet->time_at, now + frame->offset);
    memcpy(prefix + HEADER + extensions, record->descriptor, DESCRIPTOR);
    return HEADER + extensions + DESCRIPTOR;
}

/* Advance what counts frames, and remember the frame. */
static void begin(bc_outlet *outlet, const bc_frame *frame) {
    uint32_t timestamp = frame->timestamp;
    if (outlet->recorded && outlet->timestamp - timestamp < RTP_CLOCK)
        timestamp = outlet->timestamp + 1;
    outlet->timestamp = timestamp;
    outlet->picture_id = (outlet->picture_id + 1) & 0x7FFF;
    if (frame->layer == 0) {
        outlet->tl0++;
        if (frame->keyframe)
            outlet->key_index = (outlet->key_index + 1) & 0x1F;
    }

    bc_record *record = &outlet->records[outlet->recorded++ % outlet->capacity];
    record->first = outlet->sequence;
    record->serial = frame->serial;
    record->at = frame->now;
    record->timestamp = timestamp;
    record->size = frame->size;
    record->descriptor[0] = 0x90;
    record->descriptor[1] = 0xF0;
    put16(record->descriptor + 2, 0x8000u | outlet->picture_id);
    record->descriptor[4] = outlet->tl0;
    record->descriptor[5] = (uint8_t)(frame->layer << 6 | frame->sync << 5 | outlet->key_index);
}

/* Whether the outlet was sent this frame's packets up to `first`, and nothing since. */
static int continues(const bc_outlet *outlet, const bc_frame *frame) {
    if (outlet->recorded == 0)
        return 0;
    const bc_record *record = &outlet->records[(outlet->recorded - 1) % outlet->capacity];
    return record->serial == frame->serial && record->size == frame->size &&
           outlet->sequence == record->first + frame->first;
}

/* Build and protect the packets of one run in the arena; 0 when the cipher refused one, which drops the run. */
static int build(bc_kernel *kernel, bc_outlet *outlet, const bc_frame *frame, uint32_t index, uint32_t packets,
                 uint8_t *prefix, uint32_t prefix_size, uint32_t *size) {
    uint8_t *start = kernel->arena + kernel->used, *packet = start;
    uint64_t sequence = outlet->sequence;
    uint16_t transport_sequence = outlet->transport_sequence;
    outlet->sequence += packets;
    if (outlet->transport_at)
        outlet->transport_sequence = (uint16_t)(transport_sequence + packets);
    for (uint32_t number = index; number < index + packets; number++) {
        uint32_t offset = number * CHUNK;
        uint32_t left = frame->size - offset, chunk = left < CHUNK ? left : CHUNK;
        prefix[1] = outlet->payload_type | (left <= CHUNK ? 0x80 : 0);
        put16(prefix + 2, (uint32_t)(sequence & 0xFFFF));
        prefix[prefix_size - DESCRIPTOR] = number == 0 ? 0x90 : 0x80;
        if (outlet->transport_at)
            put16(prefix + HEADER + outlet->transport_at, transport_sequence++);
        memcpy(packet, prefix, MAX_PREFIX); /* a constant is faster; what is too much is written over */
        const uint8_t *source = frame->payload + offset;
        int plain = (int)(prefix_size + chunk), protected = plain, refused;
        if (outlet->cipher != NULL) {
            const uint8_t *more = chunk > NEAR ? source + NEAR : NULL;
            copy(packet + prefix_size, source, more != NULL ? NEAR : chunk);
            refused = bc_seal(outlet->cipher, sequence, prefix_size - DESCRIPTOR, packet, more, &protected);
        } else {
            copy(packet + prefix_size, source, chunk);
            refused = kernel->protect(outlet->srtp, packet, &protected);
        }
        sequence++;
        if (refused || protected != plain + outlet->tag_size)
            return 0;
        packet += protected;
    }
    *size = (uint32_t)(packet - start);
    return 1;
}

static void send_to(bc_kernel *kernel, bc_outlet *outlet, const bc_frame *frame) {
    if (frame->first == 0) {
        begin(outlet, frame);
    } else if (!continues(outlet, frame)) {
        outlet->drops += frame->end - frame->first;
        return;
    }
    double now = time_of(frame, outlet->time_at || outlet->path != NULL);
    uint8_t prefix[MAX_PREFIX] = {0};
    uint32_t prefix_size = write_prefix(outlet, frame, now, prefix);
    uint32_t stride = prefix_size + CHUNK + outlet->tag_size;
    uint32_t overhead = prefix_size - DESCRIPTOR + outlet->tag_size;
    for (uint32_t index = frame->first; index < frame->end; index += RUN) {
        uint32_t packets = frame->end - index < RUN ? frame->end - index : RUN;
        if (kernel->messages + (outlet->segmentation ? 1 : packets) > MESSAGES ||
            kernel->used + packets * stride > ARENA)
            flush(kernel);
        uint8_t *data = kernel->arena + kernel->used;
        run run = {outlet, now, packets, stride, overhead, outlet->transport_sequence, NULL};
        uint32_t size;
        if (!build(kernel, outlet, frame, index, packets, prefix, prefix_size, &size)) {
            outlet->drops += packets;
            continue;
        }
        kernel->used += size;
        if (outlet->segmentation) {
            gather(kernel, &run, data, size);
            continue;
        }
        run.packets = 1;
        for (uint32_t start = 0; start < size; start += stride, run.transport++)
            gather(kernel, &run, data + start, size - start < stride ? size - start : stride);
    }
}

/* Whether the state of its sound can be used without leaving any array. */
static int hears(const bc_outlet *outlet) {
    const bc_sound *sound = outlet->sound;
    return sound != NULL && is_sound(outlet) &&
           begins(sound->payload_type, sound->extensions_size, sound->time_at, sound->transport_at);
}

static void sound_to(bc_kernel *kernel, bc_outlet *outlet, const bc_frame *frame) {
    bc_sound *sound = outlet->sound;
    uint32_t extensions = sound->extensions_size, overhead = HEADER + extensions + outlet->tag_size;
    if (kernel->messages == MESSAGES || kernel->used + overhead + frame->size > ARENA)
        flush(kernel);
    double now = time_of(frame, sound->time_at || outlet->path != NULL);
    run run = {outlet, now, 1, overhead + frame->size, overhead, outlet->transport_sequence, sound};
    uint8_t *packet = kernel->arena + kernel->used;
    packet[0] = extensions ? 0x90 : 0x80;
    packet[1] = sound->payload_type; /* no marker: there is no talkspurt (RFC 7587 section 4.1) */
    put16(packet + 2, (uint32_t)(sound->sequence++ & 0xFFFF));
    put32(packet + 4, frame->timestamp);
    put32(packet + 8, sound->ssrc);
    memcpy(packet + HEADER, sound->extensions, extensions);
    if (sound->time_at)
        put_stamp(packet + HEADER + sound->time_at, now + frame->offset);
    if (sound->transport_at)
        put16(packet + HEADER + sound->transport_at, outlet->transport_sequence++);
    memcpy(packet + HEADER + extensions, frame->payload, frame->size);
    int plain = (int)(HEADER + extensions + frame->size), protected = plain;
    if (kernel->protect(outlet->srtp, packet, &protected) || protected != plain + outlet->tag_size) {
        outlet->drops++;
        return;
    }
    kernel->used += (uint32_t)protected;
    gather(kernel, &run, packet, (uint32_t)protected);
}

/* Serve every outlet that the kernel reaches, those of one socket together; one that is not `usable` goes without its
   `packets`. Compilers inline it into its two callers, and there what is called through the pointers. */
static inline int64_t serve(bc_kernel *kernel, bc_outlet *const *outlets, uint32_t count, const bc_frame *frame,
                            uint32_t packets, uint32_t *skipped, int (*usable)(const bc_outlet *),
                            void (*send)(bc_kernel *, bc_outlet *, const bc_frame *)) {
    kernel->sent = 0;
    kernel->patience = PATIENCE;
    for (uint32_t number = 0; number < count; number++) {
        bc_outlet *outlet = outlets[number];
        if (outlet->socket < 0) {
            ++*skipped;
            continue;
        }
        if (!usable(outlet)) {
            outlet->drops += packets;
            continue;
        }
        if (outlet->socket != kernel->socket) {
            flush(kernel);
            kernel->socket = outlet->socket;
        }
        send(kernel, outlet, frame);
    }
    flush(kernel);
    return kernel->sent;
}

int64_t bc_send(bc_kernel *kernel, bc_outlet *const *outlets, uint32_t count, const bc_frame *frame,
                uint32_t *skipped) {
    *skipped = 0;
    if (frame->payload == NULL || frame->size == 0 || frame->size > (uint32_t)MAX_PACKETS * CHUNK || frame->layer > 3 ||
        frame->sync > 1)
        return -1;
    if (frame->first >= frame->end || frame->end > (frame->size + CHUNK - 1) / CHUNK)
        return -1;
    return serve(kernel, outlets, count, frame, frame->end - frame->first, skipped, is_sound, send_to);
}

int64_t bc_send_sound(bc_kernel *kernel, bc_outlet *const *outlets, uint32_t count, const bc_frame *frame,
                      uint32_t *skipped) {
    *skipped = 0;
    if (frame->payload == NULL || frame->size == 0 || frame->size > CHUNK)
        return -1;
    return serve(kernel, outlets, count, frame, 1, skipped, hears, sound_to);
}
