/* The receiving side: many datagrams in one call, strangers dropped, RTCP reduced to a record per viewer.

   It judges datagrams as mux.py does, which is its twin in Python. Only addresses that an authentic check came from are
   in the table, so nobody else gets as far as the cipher, or is answered. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "cipher.h"
#include "feedback.h"
#include "estimate.h"
#include "consent.h"
#include "receive.h"

enum {
    LARGEST = 65535,            /* octets of a datagram */
    LINE = 64,                  /* octets that caches fetch at once */
    FIRST_SLOTS = 64
};

_Static_assert(BC_BATCH == sizeof((bc_batch *)0)->urgent / sizeof(uint32_t), "the header says it twice");

typedef int (*unprotect_function)(void *context, void *packet, int *size);

/* An address in a form that can be compared and hashed; `family` 0 is none. */
typedef struct {
    uint8_t host[16];
    uint32_t scope;
    uint16_t port, family;
} place;

_Static_assert(sizeof(place) == 24, "places are compared as bytes");

typedef struct {
    place place;
    bc_inbox *inbox;
} slot;

struct bc_receiver {
    unprotect_function unprotect;
    uint32_t limit, stride;
    uint64_t secret[2];
    slot *slots;                /* open addressing; a power of two, at most half full */
    uint32_t size, used;
    uint8_t *arena;
    struct mmsghdr headers[BC_BATCH];
    struct iovec vectors[BC_BATCH];
    struct sockaddr_storage addresses[BC_BATCH];
};

bc_receiver *bc_receiver_open(void *unprotect, uint32_t limit, const uint8_t *secret) {
    if (limit > LARGEST)
        limit = LARGEST;
    bc_receiver *receiver = calloc(1, sizeof *receiver);
    if (receiver == NULL)
        return NULL;
    memcpy(&receiver->unprotect, &unprotect, sizeof unprotect);
    memcpy(receiver->secret, secret, sizeof receiver->secret);
    receiver->limit = limit;
    receiver->stride = (limit + 1 + 15) & ~15u; /* a datagram that fills one more octet was too large */
    receiver->size = FIRST_SLOTS;
    receiver->slots = calloc(FIRST_SLOTS, sizeof *receiver->slots);
    receiver->arena = malloc((size_t)BC_BATCH * receiver->stride);
    if (receiver->slots == NULL || receiver->arena == NULL) {
        bc_receiver_close(receiver);
        return NULL;
    }
    for (uint32_t number = 0; number < BC_BATCH; number++) {
        receiver->vectors[number].iov_base = receiver->arena + (size_t)number * receiver->stride;
        receiver->vectors[number].iov_len = limit + 1;
        receiver->headers[number].msg_hdr.msg_iov = &receiver->vectors[number];
        receiver->headers[number].msg_hdr.msg_iovlen = 1;
        receiver->headers[number].msg_hdr.msg_name = &receiver->addresses[number];
    }
    return receiver;
}

void bc_receiver_close(bc_receiver *receiver) {
    free(receiver->slots);
    free(receiver->arena);
    free(receiver);
}

/* 0 for what is no address. */
static int place_of(const void *address, size_t size, place *found) {
    memset(found, 0, sizeof *found);
    sa_family_t family;
    if (size < sizeof family)
        return 0;
    memcpy(&family, address, sizeof family);
    if (family == AF_INET && size >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in four;
        memcpy(&four, address, sizeof four);
        memcpy(found->host, &four.sin_addr, sizeof four.sin_addr);
        found->port = four.sin_port;
    } else if (family == AF_INET6 && size >= sizeof(struct sockaddr_in6)) {
        struct sockaddr_in6 six;
        memcpy(&six, address, sizeof six);
        memcpy(found->host, &six.sin6_addr, sizeof six.sin6_addr);
        found->port = six.sin6_port;
        found->scope = six.sin6_scope_id;
    } else {
        return 0;
    }
    found->family = family;
    return 1;
}

/* Keyed, so that nobody can choose addresses that collide. */
static uint32_t home_of(const bc_receiver *receiver, const place *place) {
    uint64_t words[3], hash = receiver->secret[0];
    memcpy(words, place, sizeof words);
    for (int word = 0; word < 3; word++) {
        hash ^= words[word] + receiver->secret[1];
        hash *= 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
    }
    return (uint32_t)(hash * 0xD6E8FEB86659FD93u >> 32) & (receiver->size - 1);
}

/* Where the place is, or would be. */
static uint32_t seek(const bc_receiver *receiver, const place *place) {
    uint32_t at = home_of(receiver, place);
    while (receiver->slots[at].place.family && memcmp(&receiver->slots[at].place, place, sizeof *place))
        at = (at + 1) & (receiver->size - 1);
    return at;
}

static int grow(bc_receiver *receiver) {
    slot *old = receiver->slots;
    uint32_t size = receiver->size;
    slot *slots = calloc((size_t)size * 2, sizeof *slots);
    if (slots == NULL)
        return 0;
    receiver->slots = slots;
    receiver->size = size * 2;
    for (uint32_t at = 0; at < size; at++)
        if (old[at].place.family)
            slots[seek(receiver, &old[at].place)] = old[at];
    free(old);
    return 1;
}

int bc_learn(bc_receiver *receiver, const uint8_t *address, uint32_t size, bc_inbox *inbox) {
    place place;
    if (!place_of(address, size, &place))
        return 1;
    uint32_t at = seek(receiver, &place);
    if (!receiver->slots[at].place.family) {
        if (2 * (receiver->used + 1) > receiver->size) {
            if (!grow(receiver))
                return 0;
            at = seek(receiver, &place);
        }
        receiver->slots[at].place = place;
        receiver->used++;
    }
    receiver->slots[at].inbox = inbox;
    return 1;
}

void bc_forget(bc_receiver *receiver, const uint8_t *address, uint32_t size) {
    place place;
    if (!place_of(address, size, &place))
        return;
    slot *slots = receiver->slots;
    uint32_t mask = receiver->size - 1, hole = seek(receiver, &place);
    if (!slots[hole].place.family)
        return;
    receiver->used--;
    /* Move back whoever would not be found across the hole any more. */
    for (uint32_t at = (hole + 1) & mask; slots[at].place.family; at = (at + 1) & mask) {
        uint32_t home = home_of(receiver, &slots[at].place);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            slots[hole] = slots[at];
            hole = at;
        }
    }
    memset(&slots[hole], 0, sizeof slots[hole]);
}

static int may_speak(bc_inbox *inbox, double now) {
    double allowance = inbox->allowance + inbox->rate * (now - inbox->allowed_at);
    inbox->allowance = allowance < inbox->rate ? allowance : inbox->rate;
    inbox->allowed_at = now;
    if (!(inbox->allowance >= 1.0))
        return 0;
    inbox->allowance -= 1.0;
    return 1;
}

static int unprotect(bc_receiver *receiver, bc_inbox *inbox, uint8_t *data, int *length) {
    return inbox->control != NULL ? bc_unseal(inbox->control, data, length)
                                  : receiver->unprotect(inbox->srtp, data, length);
}

static void hear(bc_receiver *receiver, bc_inbox *inbox, uint8_t *data, uint32_t size, double now, bc_batch *batch) {
    bc_feedback *feedback = &inbox->feedback;
    if (size < 2 || data[1] < 192 || data[1] > 223) {
        batch->dropped_media++;
        return;
    }
    batch->heard++;
    if (!may_speak(inbox, now)) {
        inbox->dropped++;
        return;
    }
    int length = (int)size;
    if (size < inbox->shortest || unprotect(receiver, inbox, data, &length) || length < 0 ||
        (uint32_t)length > size || !bc_reduce(data, (size_t)length, now, feedback)) {
        inbox->failures++;
        return;
    }
    int told = feedback->path != NULL && feedback->path->told;
    if (!feedback->asked && !feedback->pictures_lost && !feedback->goodbye && !told)
        return;
    for (uint32_t place = 0; place < batch->urgent_count; place++)
        if (batch->urgent[place] == inbox->number)
            return;
    batch->urgent[batch->urgent_count++] = inbox->number;
}

/* Answer a consent check; 0 when it is not one that is answered here. */
static int consents(bc_inbox *inbox, const struct msghdr *header, uint32_t size, int socket, double now,
                    bc_batch *batch) {
    uint8_t answer[96];
    uint32_t length = bc_consent_answer(&inbox->consent, header->msg_iov->iov_base, size, socket, header->msg_name,
                                        header->msg_namelen, now, answer);
    if (!length)
        return 0;
    batch->checks++;
    if (sendto(socket, answer, length, MSG_DONTWAIT, header->msg_name, header->msg_namelen) < 0)
        batch->unsent++;
    return 1;
}

static void judge(bc_receiver *receiver, uint32_t number, int socket, double now, bc_batch *batch) {
    const struct msghdr *header = &receiver->headers[number].msg_hdr;
    uint32_t size = receiver->headers[number].msg_len;
    uint8_t *data = header->msg_iov->iov_base;
    if (size == 0 || size > receiver->limit || header->msg_flags & MSG_TRUNC) {
        batch->dropped_malformed++;
        return;
    }
    place place;
    const slot *slot = NULL;
    if (place_of(header->msg_name, header->msg_namelen, &place))
        slot = &receiver->slots[seek(receiver, &place)];
    if (data[0] < 4) {
        if (slot != NULL && slot->inbox != NULL && consents(slot->inbox, header, size, socket, now, batch))
            return;
    } else {
        if (slot == NULL || !slot->place.family) {
            batch->dropped_strangers++;
            return;
        }
        int is_media = data[0] >= 128 && data[0] <= 191;
        if (!is_media && !(data[0] >= 20 && data[0] <= 63)) {
            batch->dropped_malformed++;
            return;
        }
        if (is_media && slot->inbox != NULL) {
            hear(receiver, slot->inbox, data, size, now, batch);
            return;
        }
    }
    batch->datagrams[batch->left++] = (bc_datagram){data, header->msg_name, size};
}

static void fetch(const void *at, size_t size) {
    for (size_t place = 0; place < size; place += LINE)
        __builtin_prefetch((const uint8_t *)at + place);
}

/* What is known of viewers has gone cold since they last spoke, so it is fetched for a whole batch at once. */
static void prepare(const bc_receiver *receiver, uint32_t count) {
    const bc_inbox *inboxes[BC_BATCH];
    for (uint32_t number = 0; number < count; number++) {
        const struct msghdr *header = &receiver->headers[number].msg_hdr;
        place place;
        inboxes[number] = NULL;
        if (!place_of(header->msg_name, header->msg_namelen, &place))
            continue;
        const bc_inbox *inbox = inboxes[number] = receiver->slots[seek(receiver, &place)].inbox;
        if (inbox != NULL) {
            fetch(&inbox->feedback, offsetof(bc_feedback, lost));
            fetch(&inbox->control, sizeof *inbox - offsetof(bc_inbox, control));
        }
    }
    for (uint32_t number = 0; number < count; number++) {
        const bc_inbox *inbox = inboxes[number];
        if (inbox != NULL && inbox->control != NULL)
            fetch(inbox->control, sizeof *inbox->control);
        if (inbox != NULL && inbox->feedback.path != NULL)
            fetch(inbox->feedback.path, offsetof(bc_path, recent));
    }
}

uint32_t bc_drain(bc_receiver *receiver, int socket, uint32_t count, double now, bc_batch *batch) {
    batch->dropped_malformed = batch->dropped_strangers = batch->dropped_media = batch->heard = 0;
    batch->checks = batch->unsent = 0;
    batch->left = batch->urgent_count = 0;
    if (count > BC_BATCH)
        count = BC_BATCH;
    for (uint32_t number = 0; number < count; number++)
        receiver->headers[number].msg_hdr.msg_namelen = sizeof receiver->addresses[number];
    int taken;
    uint32_t errors = 0;
    do /* an ICMP error about some viewer says nothing about the datagrams behind it */
        taken = recvmmsg(socket, receiver->headers, count, MSG_DONTWAIT, NULL);
    while (taken < 0 && errno != EAGAIN && errno != EWOULDBLOCK && ++errors < count);
    if (taken < 0)
        return 0;
    prepare(receiver, (uint32_t)taken);
    for (uint32_t number = 0; number < (uint32_t)taken; number++)
        judge(receiver, number, socket, now, batch);
    return (uint32_t)taken;
}
