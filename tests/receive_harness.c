/* Drives the receiving kernel under AddressSanitizer and UBSan with strangers, viewers and hostile datagrams.

   To be linked with feedback.c, estimate.c and consent.c. Usage: harness ROUNDS SEED. Prints nothing and returns 0 when every promise held.

   The network and the cipher are replaced by ones that lie at random; a plain list says what the table must know. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

static int fake_recvmmsg(int, struct mmsghdr *, unsigned, int, struct timespec *);
static ssize_t fake_sendto(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
#define recvmmsg fake_recvmmsg
#define sendto fake_sendto
#include "receive.c"

#include "noise.h"
#include "require.h"

enum { STUN_HEADER = 20, DIGEST = 20, USERNAME = 6, INTEGRITY = 8, USE_CANDIDATE = 0x25, NOMINATION = 0xC001 };

static const uint32_t FINGERPRINT = 0x80280004, FINGERPRINT_XOR = 0x5354554E, COOKIE = 0x2112A442;

enum { ADDRESSES = 600, VIEWERS = 40, LIMIT = 300, CAPACITY = 20, SIX = sizeof(struct sockaddr_in6) };

static uint32_t get32(const uint8_t *at) { return (uint32_t)at[0] << 24 | (uint32_t)(at[1] << 16 | at[2] << 8 | at[3]); }

static void put32(uint8_t *at, uint32_t value) {
    for (int place = 0; place < 4; place++)
        at[place] = (uint8_t)(value >> (24 - 8 * place));
}

static uint32_t crc32_of(const uint8_t *data, uint32_t size) {
    uint32_t crc = UINT32_MAX;
    for (uint32_t place = 0; place < 8 * size; place++) {
        crc ^= data[place / 8] >> place % 8 & 1;
        crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
    }
    return ~crc;
}

static uint8_t addresses[ADDRESSES][SIX];
static bc_inbox *owners[ADDRESSES]; /* the list that the table is compared with */
static uint8_t known[ADDRESSES];
static bc_inbox *viewers[VIEWERS];

/* What the last drain must have found. */
static uint32_t malformed, strangers, media, heard, left, checks;
static uint64_t decrypted, answered;

static uint32_t size_of(uint32_t address) {
    return address % 2 ? SIX : (uint32_t)sizeof(struct sockaddr_in);
}

static void make_addresses(void) {
    for (uint32_t number = 0; number < ADDRESSES; number++) {
        if (number % 2) {
            struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)(number % 7))};
            six.sin6_addr.s6_addr[15] = (uint8_t)(number / 7);
            six.sin6_addr.s6_addr[0] = (uint8_t)(number / 7 >> 8);
            six.sin6_scope_id = number % 5;
            memcpy(addresses[number], &six, sizeof six);
        } else {
            struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(1 + number % 3))};
            four.sin_addr.s_addr = htonl(0x7F000000 + number / 3);
            memcpy(addresses[number], &four, sizeof four);
        }
    }
}

static uint32_t make_datagram(uint8_t *data, uint32_t room) {
    static const uint8_t firsts[] = {0, 1, 3, 4, 19, 20, 22, 63, 64, 127, 128, 0x81, 0x8F, 191, 192, 255};
    static const uint8_t kinds[] = {96, 191, 192, 200, 201, 203, 205, 206, 223, 224};
    uint32_t size = draw(20) ? draw(100) : draw(room + 1);
    for (uint32_t octet = 0; octet < size; octet++)
        data[octet] = (uint8_t)draw(256);
    if (size)
        data[0] = firsts[draw(sizeof firsts)];
    if (size > 1)
        data[1] = kinds[draw(sizeof kinds)];
    if (size > 3 && draw(2)) {
        data[2] = 0;
        data[3] = (uint8_t)(size / 4 - 1);
    }
    return size;
}

/* A check as the viewer of this address would send it, of which at times an octet is wrong. */
static uint32_t make_check(uint32_t address, const void *name, uint8_t *data, int *is_right) {
    const bc_consent *consent = &owners[address]->consent;
    uint32_t at = STUN_HEADER, length = (uint32_t)consent->ufrag_size + draw(2) * 7, padded = (length + 3) & ~3u;
    memset(data, 0, LIMIT);
    data[1] = 1;
    put32(data + 4, COOKIE);
    for (uint32_t octet = 8; octet < STUN_HEADER; octet++)
        data[octet] = (uint8_t)draw(256);
    put32(data + at, USERNAME << 16 | length);
    memcpy(data + at + 4, consent->ufrag, consent->ufrag_size);
    if (length > consent->ufrag_size)
        data[at + 4 + consent->ufrag_size] = ':';
    at += 4 + padded;
    uint32_t extras = draw(3);
    if (extras) {
        put32(data + at, USE_CANDIDATE << 16);
        put32(data + at + 4, (uint32_t)NOMINATION << 16 | 4);
        put32(data + at + 8, extras == 1 ? (uint32_t)consent->nomination : (uint32_t)consent->nomination + 1);
        at += 12;
    }
    data[3] = (uint8_t)(at - STUN_HEADER + 24);
    uint8_t digest[DIGEST];
    bc_consent_sign(consent, data, at, digest);
    put32(data + at, INTEGRITY << 16 | DIGEST);
    memcpy(data + at + 4, digest, DIGEST);
    at += 24;
    if (draw(2)) {
        data[3] = (uint8_t)(at - STUN_HEADER + 8);
        uint32_t crc = crc32_of(data, at);
        put32(data + at, FINGERPRINT);
        put32(data + at + 4, crc ^ FINGERPRINT_XOR);
        at += 8;
    }
    *is_right = extras != 2 && consent->address_size == size_of(address) && consent->socket == 7 &&
                memcmp(consent->address, name, size_of(address)) == 0;
    if (draw(4) == 0) {
        data[draw(at)] ^= (uint8_t)(1 << draw(8));
        *is_right = 0;
    }
    return at;
}

static void foresee(uint32_t address, const uint8_t *data, uint32_t size) {
    if (size == 0 || size > LIMIT) {
        malformed++;
    } else if (data[0] < 4) {
        left++;
    } else if (address == ADDRESSES || !known[address]) {
        strangers++;
    } else if (data[0] >= 20 && data[0] <= 63) {
        left++;
    } else if (data[0] < 128 || data[0] > 191) {
        malformed++;
    } else if (owners[address] == NULL) {
        left++;
    } else if (size < 2 || data[1] < 192 || data[1] > 223) {
        media++;
    } else {
        heard++;
    }
}

static int fake_recvmmsg(int socket, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
    static const int errors[] = {EAGAIN, EINTR, ECONNREFUSED, EHOSTUNREACH, EBADF};
    REQUIRE(socket == 7 && count > 0 && count <= BC_BATCH && flags == MSG_DONTWAIT && timeout == NULL);
    if (draw(8) == 0) {
        errno = errors[draw(5)];
        return -1;
    }
    unsigned taken = 1 + draw(count);
    for (unsigned number = 0; number < taken; number++) {
        struct msghdr *header = &messages[number].msg_hdr;
        REQUIRE(header->msg_iovlen == 1 && header->msg_namelen >= SIX);
        uint32_t address = draw(ADDRESSES + 1);
        if (address == ADDRESSES) {
            header->msg_namelen = draw(3);
            memset(header->msg_name, 0xFF, header->msg_namelen);
        } else {
            header->msg_namelen = size_of(address);
            memcpy(header->msg_name, addresses[address], header->msg_namelen);
            if (address % 2 && draw(2)) /* a flow label is no part of an address */
                ((struct sockaddr_in6 *)header->msg_name)->sin6_flowinfo = draw(1000);
        }
        uint8_t *data = header->msg_iov->iov_base;
        REQUIRE(header->msg_iov->iov_len == LIMIT + 1);
        int is_right = 0;
        uint32_t size = address < ADDRESSES && known[address] && owners[address] != NULL && draw(2)
                            ? make_check(address, header->msg_name, data, &is_right)
                            : make_datagram(data, LIMIT + 1);
        messages[number].msg_len = size;
        header->msg_flags = size == LIMIT + 1 ? MSG_TRUNC : 0;
        if (is_right)
            checks++;
        else
            foresee(address, data, size);
    }
    return (int)taken;
}

static ssize_t fake_sendto(int socket, const void *data, size_t size, int flags, const struct sockaddr *address,
                           socklen_t length) {
    const uint8_t *answer = data;
    REQUIRE(socket == 7 && flags == MSG_DONTWAIT && size <= 96 && size == (size_t)STUN_HEADER + answer[3]);
    REQUIRE(length == sizeof(struct sockaddr_in) || length == SIX);
    REQUIRE(get32(answer + size - 4) == (crc32_of(answer, (uint32_t)size - 8) ^ FINGERPRINT_XOR));
    answered += ((const uint8_t *)address)[0] != 0;
    errno = ENOBUFS;
    return draw(10) ? (ssize_t)size : -1;
}

/* Touches every octet, and takes away as many as a tag has; or lies. */
static int fake_unprotect(void *context, void *packet, int *size) {
    uint8_t *octets = packet;
    REQUIRE(context == &noise && *size >= 12 && *size <= LIMIT);
    decrypted++;
    switch (draw(10)) {
    case 0:
        return 1;
    case 1:
        *size = (int)draw(3) - 2;
        return 0;
    case 2:
        *size += 1000;
        return 0;
    default:
        octets[*size - 1] ^= 1;
        *size -= (int)draw(3) * 4;
        return 0;
    }
}

int bc_unseal(bc_control *control, void *packet, int *size) { return fake_unprotect(control, packet, size); }

static bc_inbox *make_viewer(uint32_t number) {
    bc_inbox *inbox = calloc(1, sizeof *inbox); /* on its own, so that writing on is seen */
    REQUIRE(inbox);
    inbox->feedback.arrivals = malloc(CAPACITY * sizeof(bc_arrival));
    inbox->feedback.capacity = CAPACITY;
    if (draw(2))
        inbox->srtp = &noise;
    else
        inbox->control = (bc_control *)&noise;
    inbox->rate = inbox->allowance = 1 + draw(30);
    inbox->number = number;
    inbox->shortest = 12;
    bc_consent *consent = &inbox->consent;
    uint8_t word[64];
    for (uint32_t place = 0; place < 64; place++)
        word[place] = (uint8_t)draw(256);
    REQUIRE(!bc_consent_open(consent, word, sizeof consent->ufrag + 1, word, 1));
    REQUIRE(!bc_consent_open(consent, word, 1, word, 65));
    REQUIRE(bc_consent_open(consent, word, 1 + draw(sizeof consent->ufrag), word, draw(65)));
    consent->socket = draw(8) ? 7 : 8;
    consent->nomination = draw(3);
    uint32_t address = draw(ADDRESSES);
    consent->address_size = (uint8_t)size_of(address);
    memcpy(consent->address, addresses[address], size_of(address));
    return inbox;
}

static void end_viewer(bc_receiver *receiver, uint32_t number) {
    for (uint32_t address = 0; address < ADDRESSES; address++)
        if (known[address] && owners[address] == viewers[number]) {
            bc_forget(receiver, addresses[address], size_of(address));
            known[address] = 0;
        }
    free(viewers[number]->feedback.arrivals);
    free(viewers[number]);
    viewers[number] = make_viewer(number);
}

static void change_table(bc_receiver *receiver) {
    uint32_t address = draw(ADDRESSES), viewer = draw(VIEWERS);
    switch (draw(8)) {
    case 0:
        end_viewer(receiver, viewer);
        break;
    case 1:
    case 2:
        bc_forget(receiver, addresses[address], size_of(address));
        known[address] = 0;
        break;
    default:
        owners[address] = draw(4) ? viewers[viewer] : NULL;
        known[address] = 1;
        if (owners[address] != NULL && draw(2)) {
            bc_consent *consent = &owners[address]->consent;
            consent->address_size = (uint8_t)size_of(address);
            memcpy(consent->address, addresses[address], size_of(address));
        }
        REQUIRE(bc_learn(receiver, addresses[address], size_of(address), owners[address]));
    }
    uint8_t damaged[SIX];
    memset(damaged, (int)draw(256), sizeof damaged);
    bc_forget(receiver, damaged, draw(2));
    REQUIRE(bc_learn(receiver, damaged, draw(2), NULL));
}

static void drain(bc_receiver *receiver, double now) {
    malformed = strangers = media = heard = left = checks = 0;
    uint64_t before = decrypted, failures = 0, dropped = 0, accepted = 0;
    for (uint32_t number = 0; number < VIEWERS; number++) {
        failures -= viewers[number]->failures;
        dropped -= viewers[number]->dropped;
    }
    bc_batch *batch = malloc(sizeof *batch);
    uint32_t taken = bc_drain(receiver, 7, 1 + draw(100), now, batch);
    REQUIRE(taken <= BC_BATCH);
    REQUIRE(batch->dropped_malformed == malformed && batch->dropped_strangers == strangers);
    REQUIRE(batch->dropped_media == media && batch->heard == heard && batch->left == left);
    REQUIRE(batch->checks == checks && batch->unsent <= checks);
    REQUIRE(taken == malformed + strangers + media + heard + left + checks);
    for (uint32_t number = 0; number < batch->left; number++)
        REQUIRE(batch->datagrams[number].size > 0 && batch->datagrams[number].size <= LIMIT);
    REQUIRE(batch->urgent_count <= VIEWERS);
    for (uint32_t number = 0; number < batch->urgent_count; number++) {
        bc_feedback *feedback = &viewers[batch->urgent[number]]->feedback;
        REQUIRE(feedback->asked || feedback->pictures_lost || feedback->goodbye);
        feedback->asked = 0;
        feedback->pictures_lost = 0;
        feedback->goodbye = 0;
        feedback->arrived = 0;
    }
    for (uint32_t number = 0; number < VIEWERS; number++) {
        failures += viewers[number]->failures;
        dropped += viewers[number]->dropped;
        REQUIRE(!viewers[number]->feedback.asked && !viewers[number]->feedback.goodbye);
    }
    accepted = decrypted - before;
    REQUIRE(dropped <= heard && failures + dropped <= heard && accepted + dropped <= heard);
    free(batch);
}

int main(int count, char **arguments) {
    REQUIRE(count == 3);
    int rounds = atoi(arguments[1]);
    noise = strtoull(arguments[2], NULL, 10) * 2 + 1;
    union {
        unprotect_function function;
        void *pointer;
    } unprotect = {fake_unprotect};
    uint8_t secret[16] = {1, 2, 3};
    bc_receiver *receiver = bc_receiver_open(unprotect.pointer, LIMIT, secret);
    REQUIRE(receiver);
    make_addresses();
    for (uint32_t number = 0; number < VIEWERS; number++)
        viewers[number] = make_viewer(number);
    for (int number = 0; number < rounds; number++) {
        for (uint32_t change = draw(12); change > 0; change--)
            change_table(receiver);
        drain(receiver, number * 0.01);
    }
    REQUIRE(rounds < 100 || (decrypted > 0 && answered > 0));
    uint32_t used = 0;
    for (uint32_t address = 0; address < ADDRESSES; address++)
        used += known[address];
    REQUIRE(receiver->used == used && 2 * used <= receiver->size);
    for (uint32_t number = 0; number < VIEWERS; number++) {
        end_viewer(receiver, number);
        free(viewers[number]->feedback.arrivals);
        free(viewers[number]);
    }
    bc_receiver_close(receiver);
    return 0;
}
