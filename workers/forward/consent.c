/* Answers consent checks as workers/transport/stun.py and mux.py do. Nothing here is decided that they would decide
   otherwise: a check that is not plain, or wrong in any way, is left to them. */

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "consent.h"
#include "octets.h"

enum {
    HEADER = 20,
    TRANSACTION = 12,
    PAD = 64,                   /* octets of a block of SHA-1 */
    DIGEST = 20,
    LONGEST = 512,              /* octets of a check that is read here */
    USERNAME = 0x0006,
    MESSAGE_INTEGRITY = 0x0008,
    XOR_MAPPED_ADDRESS = 0x0020,
    USE_CANDIDATE = 0x0025,
    FINGERPRINT = 0x8028,
    ICE_CONTROLLED = 0x8029,
    NOMINATION = 0xC001
};

static const uint8_t COOKIE[4] = {0x21, 0x12, 0xA4, 0x42};
static const uint32_t FINGERPRINT_XOR = 0x5354554E;

_Static_assert(BC_CHECKS * TRANSACTION == sizeof((bc_consent *)0)->seen, "the header says it twice");

/* --- SHA-1 (FIPS 180-4) and HMAC (RFC 2104) ---------------------------------------------------------------------- */

static const uint32_t START[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};

static uint32_t turned(uint32_t value, int bits) { return value << bits | value >> (32 - bits); }

static void digest_block(uint32_t state[5], const uint8_t *block) {
    uint32_t words[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int word = 0; word < 16; word++)
        words[word] = get32(block + 4 * word);
    for (int word = 16; word < 80; word++)
        words[word] = turned(words[word - 3] ^ words[word - 8] ^ words[word - 14] ^ words[word - 16], 1);
    for (int word = 0; word < 80; word++) {
        uint32_t mixed = word < 20   ? (d ^ (b & (c ^ d))) + 0x5A827999
                         : word < 40 ? (b ^ c ^ d) + 0x6ED9EBA1
                         : word < 60 ? ((b & c) | (d & (b | c))) + 0x8F1BBCDC
                                     : (b ^ c ^ d) + 0xCA62C1D6;
        uint32_t next = turned(a, 5) + mixed + e + words[word];
        e = d;
        d = c;
        c = turned(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

/* The digest of the block that `before` has seen and of `size` octets behind it. */
static void finish(const uint32_t before[5], const uint8_t *data, uint32_t size, uint8_t digest[DIGEST]) {
    uint32_t state[5], octets = PAD + size;
    uint8_t last[2 * PAD] = {0};
    memcpy(state, before, sizeof state);
    for (; size >= PAD; size -= PAD, data += PAD)
        digest_block(state, data);
    memcpy(last, data, size);
    last[size] = 0x80;
    uint32_t blocks = size < PAD - 8 ? 1 : 2;
    put32(last + blocks * PAD - 4, octets * 8);
    for (uint32_t block = 0; block < blocks; block++)
        digest_block(state, last + block * PAD);
    for (int word = 0; word < 5; word++)
        put32(digest + 4 * word, state[word]);
}

void bc_consent_sign(const bc_consent *consent, const uint8_t *data, uint32_t size, uint8_t *digest) {
    uint8_t inner[DIGEST];
    finish(consent->inner, data, size, inner);
    finish(consent->outer, inner, sizeof inner, digest);
}

/* --- CRC-32, as of zlib ------------------------------------------------------------------------------------------ */

static uint32_t crc32_of(const uint8_t *data, uint32_t size) {
    static const uint32_t nibbles[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
        0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
    };
    uint32_t crc = 0xFFFFFFFF;
    for (uint32_t place = 0; place < size; place++) {
        crc ^= data[place];
        crc = crc >> 4 ^ nibbles[crc & 15];
        crc = crc >> 4 ^ nibbles[crc & 15];
    }
    return ~crc;
}

/* --- STUN --------------------------------------------------------------------------------------------------------- */

int bc_consent_open(bc_consent *consent, const uint8_t *ufrag, uint32_t ufrag_size, const uint8_t *password,
                    uint32_t password_size) {
    if (ufrag_size > sizeof consent->ufrag || password_size > PAD)
        return 0;
    uint8_t pad[PAD];
    memset(pad, 0x36, sizeof pad);
    for (uint32_t place = 0; place < password_size; place++)
        pad[place] ^= password[place];
    memcpy(consent->inner, START, sizeof START);
    digest_block(consent->inner, pad);
    for (int place = 0; place < PAD; place++)
        pad[place] ^= 0x36 ^ 0x5C;
    memcpy(consent->outer, START, sizeof START);
    digest_block(consent->outer, pad);
    memcpy(consent->ufrag, ufrag, ufrag_size);
    consent->ufrag_size = (uint8_t)ufrag_size;
    return 1;
}

/* Whether the USERNAME begins with our ufrag, up to a colon or its end. */
static int names(const bc_consent *consent, const uint8_t *name, uint32_t size) {
    uint32_t ours = consent->ufrag_size;
    return size >= ours && memcmp(name, consent->ufrag, ours) == 0 && (size == ours || name[ours] == ':');
}

/* Where MESSAGE-INTEGRITY begins in a check that is well formed, names us and changes nothing; else 0. */
static uint32_t find_integrity(const bc_consent *consent, const uint8_t *data, uint32_t size) {
    int named = 0, nominates = 0;
    int64_t nomination = -1;
    for (uint32_t at = HEADER; at < size;) {
        uint32_t kind = get16(data + at), length = get16(data + at + 2), start = at + 4;
        if (start + length > size)
            return 0;
        switch (kind) {
        case MESSAGE_INTEGRITY:
            if (length != DIGEST || !named || (nominates && nomination > consent->nomination))
                return 0;
            return at;
        case USERNAME:
            if (!named && !names(consent, data + start, length))
                return 0;
            named = 1;
            break;
        case USE_CANDIDATE:
            nominates = 1;
            break;
        case ICE_CONTROLLED:
            return 0;
        case NOMINATION:
            if (length == 4)
                nomination = get32(data + start);
            break;
        default:
            break;
        }
        at = start + ((length + 3) & ~3u);
    }
    return 0;
}

static int is_authentic(const bc_consent *consent, const uint8_t *data, uint32_t size, uint32_t integrity) {
    uint32_t end = integrity + 4 + DIGEST;
    uint8_t covered[LONGEST], digest[DIGEST], differs = 0;
    if (end != size && (end + 8 != size || get32(data + end) != ((uint32_t)FINGERPRINT << 16 | 4u) ||
                        get32(data + end + 4) != (crc32_of(data, end) ^ FINGERPRINT_XOR)))
        return 0;
    memcpy(covered, data, integrity);
    put16(covered + 2, end - HEADER);
    bc_consent_sign(consent, covered, integrity, digest);
    for (int place = 0; place < DIGEST; place++)
        differs |= digest[place] ^ data[integrity + 4 + place];
    return !differs;
}

static uint32_t map_address(const void *address, uint32_t size, const uint8_t *transaction, uint8_t *at) {
    const uint8_t *host;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
    uint8_t mask[16];
    uint32_t length, port;
    memcpy(mask, COOKIE, sizeof COOKIE);
    memcpy(mask + sizeof COOKIE, transaction, TRANSACTION);
    if (size == sizeof four) {
        memcpy(&four, address, sizeof four);
        host = (const uint8_t *)&four.sin_addr;
        port = ntohs(four.sin_port);
        length = 4;
    } else {
        memcpy(&six, address, sizeof six);
        host = (const uint8_t *)&six.sin6_addr;
        port = ntohs(six.sin6_port);
        length = 16;
    }
    put16(at, XOR_MAPPED_ADDRESS);
    put16(at + 2, 4 + length);
    put16(at + 4, length == 4 ? 1 : 2);
    put16(at + 6, port ^ get16(COOKIE));
    for (uint32_t place = 0; place < length; place++)
        at[8 + place] = host[place] ^ mask[place];
    return 8 + length;
}

uint32_t bc_consent_answer(bc_consent *consent, const uint8_t *data, uint32_t size, int socket, const void *address,
                           uint32_t address_size, double now, uint8_t *answer) {
    if (!consent->ufrag_size || socket != consent->socket || address_size != consent->address_size ||
        memcmp(address, consent->address, address_size))
        return 0;
    if (size < HEADER || size > LONGEST || size % 4 || size != HEADER + get16(data + 2) || get16(data) != 0x0001 ||
        memcmp(data + 4, COOKIE, sizeof COOKIE))
        return 0;
    uint32_t integrity = find_integrity(consent, data, size);
    if (!integrity || !is_authentic(consent, data, size, integrity))
        return 0;
    memcpy(consent->seen[consent->checks++ % BC_CHECKS], data + 8, TRANSACTION);
    consent->checked_at = now;

    put16(answer, 0x0101);
    memcpy(answer + 4, data + 4, sizeof COOKIE + TRANSACTION);
    uint32_t end = HEADER + map_address(address, address_size, data + 8, answer + HEADER);
    put16(answer + 2, end - HEADER + 4 + DIGEST);
    uint8_t digest[DIGEST];
    bc_consent_sign(consent, answer, end, digest);
    put16(answer + 2, end - HEADER + 4 + DIGEST + 8);
    put16(answer + end, MESSAGE_INTEGRITY);
    put16(answer + end + 2, DIGEST);
    memcpy(answer + end + 4, digest, DIGEST);
    end += 4 + DIGEST;
    uint32_t crc = crc32_of(answer, end);
    put16(answer + end, FINGERPRINT);
    put16(answer + end + 2, 4);
    put32(answer + end + 4, crc ^ FINGERPRINT_XOR);
    return end + 8;
}
