/* Drives the fan-out kernel under AddressSanitizer and UBSan with random and hostile shapes.

   Usage: harness ROUNDS SEED. Prints nothing and returns 0 when every promise held.

   The system calls are replaced by ones that check what they are given and fail at random. */

#define _GNU_SOURCE
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <poll.h>

static int fake_sendmmsg(int, struct mmsghdr *, unsigned, int);
static ssize_t fake_sendto(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
static int fake_poll(struct pollfd *, nfds_t, int);
#define sendmmsg fake_sendmmsg
#define sendto fake_sendto
#define poll fake_poll
#include "kernel.c"

#include "noise.h"
#include "require.h"

enum { OUTLETS = 40, CAPACITY = 5 };

static uint64_t datagrams, polls;
static int hostile_network, hostile_cipher;

/* Touches every octet it is given, and as many more as it adds. */
static int fake_protect(void *context, void *packet, int *size) {
    uint32_t tag = *(uint32_t *)context;
    uint8_t *octets = packet;
    REQUIRE(*size > HEADER && *size <= MAX_PREFIX + CHUNK);
    REQUIRE(octets[0] == 0x80 || octets[0] == 0x90);
    if (hostile_cipher && draw(50) == 0)
        return 1;
    if (hostile_cipher && draw(50) == 0) {
        *size += TRAILER;
        memset(octets + *size - TRAILER, 1, TRAILER);
        return 0;
    }
    for (int place = HEADER; place < *size; place++)
        octets[place] ^= 0x55;
    memset(octets + *size, 0xAA, tag);
    *size += (int)tag;
    return 0;
}

static int fail(void) {
    static const int errors[] = {EAGAIN, EINTR, ENOBUFS, EINVAL, EIO, EMSGSIZE, ENETUNREACH, ECONNREFUSED, EBADF};
    if (!hostile_network || draw(4))
        return 0;
    errno = errors[draw(sizeof errors / sizeof *errors)];
    return 1;
}

static uint32_t checksum;

static void read_all(const void *data, size_t size) {
    for (size_t place = 0; place < size; place++)
        checksum += ((const uint8_t *)data)[place];
}

static int fake_sendmmsg(int socket, struct mmsghdr *messages, unsigned count, int flags) {
    REQUIRE(socket >= 0 && count > 0 && count <= MESSAGES && flags == MSG_DONTWAIT);
    if (fail())
        return -1;
    unsigned taken = hostile_network ? 1 + draw(count) : count;
    for (unsigned number = 0; number < taken; number++) {
        struct msghdr *header = &messages[number].msg_hdr;
        REQUIRE(header->msg_iovlen == 1 && header->msg_namelen >= 16 && header->msg_namelen <= 28);
        read_all(header->msg_name, header->msg_namelen);
        read_all(header->msg_iov->iov_base, header->msg_iov->iov_len);
        size_t segments = 1;
        if (header->msg_control) {
            struct cmsghdr *control = CMSG_FIRSTHDR(header);
            uint16_t stride;
            REQUIRE(control && control->cmsg_type == UDP_SEGMENT && control->cmsg_level == IPPROTO_UDP);
            memcpy(&stride, CMSG_DATA(control), sizeof stride);
            REQUIRE(stride > HEADER && header->msg_iov->iov_len > stride);
            segments = (header->msg_iov->iov_len + stride - 1) / stride;
        }
        REQUIRE(segments <= 64 && header->msg_iov->iov_len <= 65507);
        datagrams += segments;
    }
    return (int)taken;
}

static ssize_t fake_sendto(int socket, const void *data, size_t size, int flags, const struct sockaddr *address,
                           socklen_t length) {
    REQUIRE(socket >= 0 && size > HEADER && size <= MAX_STRIDE && flags == MSG_DONTWAIT);
    read_all(data, size);
    read_all(address, length);
    if (fail())
        return -1;
    datagrams++;
    return (ssize_t)size;
}

static int fake_poll(struct pollfd *entry, nfds_t count, int timeout) {
    REQUIRE(count == 1 && entry->events == POLLOUT && timeout >= 0 && timeout <= 3);
    polls++;
    return (int)draw(2);
}

static void shape(bc_outlet *outlet, bc_record *records, uint32_t *tag, int hostile) {
    static const uint8_t tags[] = {4, 10, 16};
    *tag = tags[draw(3)];
    *outlet = (bc_outlet){
        .srtp = tag,
        .records = records,
        .capacity = CAPACITY,
        .recorded = draw(2) ? 0 : draw(1000),
        .sequence = draw(2) ? 0xFFFFFFF0u : draw(32768),
        .timestamp = draw(1u << 30) * 4,
        .socket = (int32_t)draw(4) - 1,
        .picture_id = (uint16_t)(0x7FF0 + draw(16)),
        .transport_sequence = (uint16_t)(0xFFF0 + draw(16)),
        .tl0 = 250,
        .key_index = 30,
        .payload_type = (uint8_t)draw(128),
        .tag_size = (uint8_t)*tag,
        .segmentation = draw(3) != 0,
        .extensions_size = (uint8_t)(4 * draw(9)),
        .address_size = draw(2) ? 16 : 28,
    };
    if (outlet->extensions_size >= 16) {
        outlet->time_at = draw(2) ? 5 : 0;
        outlet->transport_at = (uint8_t)(draw(2) ? outlet->extensions_size - 2 : 0);
    }
    if (!hostile)
        return;
    switch (draw(12)) {
    case 0: outlet->extensions_size = (uint8_t)draw(256); break;
    case 1: outlet->address_size = (uint8_t)draw(256); break;
    case 2: outlet->tag_size = (uint8_t)draw(256); break;
    case 3: outlet->time_at = (uint8_t)draw(256); break;
    case 4: outlet->transport_at = (uint8_t)draw(256); break;
    case 5: outlet->capacity = 0; break;
    case 6: outlet->records = NULL; break;
    case 7: outlet->srtp = NULL; break;
    case 8: outlet->payload_type = (uint8_t)draw(256); break;
    case 9: outlet->picture_id = outlet->transport_sequence = 0xFFFF; break;
    case 10: outlet->tl0 = outlet->key_index = 0xFF; outlet->segmentation = 0xFF; break;
    default: outlet->sequence = outlet->recorded = UINT64_MAX; break;
    }
}

static bc_frame picture(const uint8_t *payload, uint32_t size) {
    static const double times[] = {0.0, 1e9, -1e18, 1e300, NAN};
    return (bc_frame){
        .payload = payload,
        .serial = noise,
        .now = draw(2) ? 5.0 : times[draw(5)],
        .offset = draw(2) ? 1.7e9 : times[draw(5)],
        .size = size,
        .timestamp = draw(1u << 30) * 4,
        .end = (uint32_t)(((uint64_t)size + CHUNK - 1) / CHUNK),
        .keyframe = (uint8_t)draw(2),
        .layer = (uint8_t)draw(4),
        .sync = (uint8_t)draw(2),
        .frozen = (uint8_t)draw(2),
    };
}

static const bc_path_settings estimation = {.runs = 128, .window = 10, .short_window = 5, .loss_slots = 8, .delays = 8};

static uint64_t total(const bc_outlet *outlets, size_t field) {
    uint64_t sum = 0;
    for (int number = 0; number < OUTLETS; number++)
        sum += *(const uint64_t *)((const uint8_t *)&outlets[number] + field);
    return sum;
}

static void round_of_frames(bc_kernel *kernel, int hostile) {
    bc_outlet *outlets = calloc(OUTLETS, sizeof *outlets), *pointers[OUTLETS];
    bc_record *records = calloc(OUTLETS * CAPACITY, sizeof *records);
    uint32_t tags[OUTLETS], python = 0;
    bc_cipher *ciphers[OUTLETS];
    REQUIRE(outlets && records);
    uint8_t master[28];
    for (unsigned place = 0; place < sizeof master; place++)
        master[place] = (uint8_t)draw(256);
    hostile_network = hostile && draw(2);
    hostile_cipher = hostile && draw(2);
    for (int number = 0; number < OUTLETS; number++) {
        shape(&outlets[number], &records[number * CAPACITY], &tags[number], hostile && draw(3) == 0);
        pointers[number] = &outlets[number];
        ciphers[number] = malloc(sizeof(bc_cipher));
        REQUIRE(ciphers[number]);
        if (draw(2) && bc_cipher_open(ciphers[number], master)) {
            outlets[number].cipher = ciphers[number];
            outlets[number].tag_size = (uint8_t)(hostile && draw(3) == 0 ? draw(256) : CIPHER_TAG);
        }
        if (draw(2)) {
            outlets[number].path = malloc(sizeof(bc_path));
            bc_path_open(outlets[number].path, &estimation);
        }
        python += outlets[number].socket < 0;
    }
    uint64_t sent = 0;
    for (int number = 0; number < 4; number++) {
        uint32_t size = draw(3) ? 1 + draw(9000) : draw(2) ? 1 + draw(48 * CHUNK * 3) : CHUNK * (1 + draw(100));
        uint8_t *payload = malloc(size);  /* exactly, so that reading on is seen */
        REQUIRE(payload);
        memset(payload, number, size);
        bc_frame frame = picture(payload, size);
        if (!hostile)
            frame.now = 5.0, frame.offset = 1.7e9;
        uint32_t skipped = 99, count = draw(OUTLETS + 1);
        uint64_t drops = total(outlets, offsetof(bc_outlet, drops)), datagrams_before = datagrams;
        uint32_t packets = frame.end;
        int64_t left = 0;
        for (frame.end = 0; frame.end < packets; frame.first = frame.end) {
            frame.end += draw(3) ? packets - frame.end : 1 + draw(packets - frame.end);
            int64_t some = bc_send(kernel, pointers, count, &frame, &skipped);
            REQUIRE(some >= 0 && skipped <= python);
            left += some;
        }
        drops = total(outlets, offsetof(bc_outlet, drops)) - drops;
        REQUIRE((uint64_t)left + drops == (uint64_t)packets * (count - skipped));
        REQUIRE((uint64_t)left == datagrams - datagrams_before);
        REQUIRE(hostile || drops == 0);
        sent += (uint64_t)left;
        free(payload);
    }
    REQUIRE(sent == total(outlets, offsetof(bc_outlet, packets)));
    REQUIRE(total(outlets, offsetof(bc_outlet, octets)) <= sent * (CHUNK + DESCRIPTOR));
    for (uint32_t number = 0; number < OUTLETS; number++)
        free(outlets[number].path);
    for (uint32_t number = 0; number < OUTLETS; number++)
        free(ciphers[number]);
    free(outlets);
    free(records);
}

static void shape_sound(bc_sound *sound, int hostile) {
    *sound = (bc_sound){
        .sequence = draw(2) ? 0xFFF0u : draw(32768),
        .ssrc = draw(1u << 30),
        .payload_type = (uint8_t)draw(128),
        .extensions_size = (uint8_t)(4 * draw(9)),
    };
    if (sound->extensions_size >= 16) {
        sound->time_at = draw(2) ? 5 : 0;
        sound->transport_at = (uint8_t)(draw(2) ? sound->extensions_size - 2 : 0);
    }
    if (!hostile)
        return;
    switch (draw(5)) {
    case 0: sound->extensions_size = (uint8_t)draw(256); break;
    case 1: sound->time_at = (uint8_t)draw(256); break;
    case 2: sound->transport_at = (uint8_t)draw(256); break;
    case 3: sound->payload_type = (uint8_t)draw(256); break;
    default: sound->sequence = UINT64_MAX; break;
    }
}

static void round_of_sound(bc_kernel *kernel, int hostile) {
    bc_outlet *outlets = calloc(OUTLETS, sizeof *outlets), *pointers[OUTLETS];
    bc_record *records = calloc(OUTLETS * CAPACITY, sizeof *records);
    bc_sound *sounds = calloc(OUTLETS, sizeof *sounds);
    uint32_t tags[OUTLETS];
    REQUIRE(outlets && records && sounds);
    hostile_network = hostile && draw(2);
    hostile_cipher = hostile && draw(2);
    for (int number = 0; number < OUTLETS; number++) {
        shape(&outlets[number], &records[number * CAPACITY], &tags[number], hostile && draw(3) == 0);
        shape_sound(&sounds[number], hostile && draw(3) == 0);
        pointers[number] = &outlets[number];
        outlets[number].sound = draw(4) ? &sounds[number] : NULL;
        if (draw(2)) {
            outlets[number].path = malloc(sizeof(bc_path));
            bc_path_open(outlets[number].path, &estimation);
        }
    }
    uint64_t sent = 0, counted = 0;
    for (int number = 0; number < 8; number++) {
        uint32_t size = draw(5) ? 1 + draw(400) : CHUNK, skipped = 99, count = draw(OUTLETS + 1), deaf = 0;
        uint8_t *payload = malloc(size);
        REQUIRE(payload);
        memset(payload, number, size);
        bc_frame frame = picture(payload, size);
        for (uint32_t place = 0; place < count; place++)
            deaf += outlets[place].socket >= 0 && outlets[place].sound == NULL;
        uint64_t drops = total(outlets, offsetof(bc_outlet, drops)), before = datagrams;
        int64_t left = bc_send_sound(kernel, pointers, count, &frame, &skipped);
        drops = total(outlets, offsetof(bc_outlet, drops)) - drops;
        REQUIRE(left >= 0 && (uint64_t)left == datagrams - before && drops >= deaf);
        REQUIRE((uint64_t)left + drops == count - skipped);
        REQUIRE(hostile || drops == deaf);
        sent += (uint64_t)left;
        free(payload);
    }
    for (uint32_t number = 0; number < OUTLETS; number++) {
        counted += sounds[number].packets;
        free(outlets[number].path);
    }
    REQUIRE(sent == counted && total(outlets, offsetof(bc_outlet, packets)) == 0);
    free(sounds);
    free(outlets);
    free(records);
}

static void impossible_sounds(bc_kernel *kernel) {
    static const uint8_t octet = 0;
    uint32_t skipped = 99;
    bc_frame none = picture(NULL, 1), empty = picture(&octet, 0), loud = picture(&octet, CHUNK + 1);
    const bc_frame *sounds[] = {&none, &empty, &loud};
    for (int number = 0; number < 3; number++)
        REQUIRE(bc_send_sound(kernel, NULL, 0, sounds[number], &skipped) == -1 && skipped == 0);
}

static void impossible_frames(bc_kernel *kernel) {
    static const uint8_t octet = 0;
    uint32_t skipped = 99;
    bc_frame none = picture(NULL, 1), empty = picture(&octet, 0), huge = picture(&octet, UINT32_MAX);
    bc_frame large = picture(&octet, MAX_PACKETS * CHUNK + 1), layered = picture(&octet, 1);
    bc_frame nothing = picture(&octet, 1), beyond = picture(&octet, 1), backwards = picture(&octet, 1);
    layered.layer = 4;
    nothing.end = 0;
    beyond.end = 2;
    backwards.first = UINT32_MAX;
    const bc_frame *frames[] = {&none, &empty, &huge, &large, &layered, &nothing, &beyond, &backwards};
    for (int number = 0; number < 8; number++)
        REQUIRE(bc_send(kernel, NULL, 0, frames[number], &skipped) == -1 && skipped == 0);
}

int main(int count, char **arguments) {
    REQUIRE(count == 3);
    int rounds = atoi(arguments[1]);
    noise = strtoull(arguments[2], NULL, 10) * 2 + 1;
    union {
        protect_function function;
        void *pointer;
    } protect = {fake_protect};
    bc_kernel *kernel = bc_open(protect.pointer);
    REQUIRE(kernel);
    impossible_frames(kernel);
    impossible_sounds(kernel);
    for (int number = 0; number < rounds; number++) {
        round_of_frames(kernel, number % 2);
        round_of_sound(kernel, number % 2);
    }
    bc_close(kernel);
    bc_close(NULL);
    REQUIRE(datagrams > 0 && (rounds < 100 || polls > 0));
    return 0;
}
