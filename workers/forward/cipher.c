/* AES-128-GCM by VAES and VPCLMULQDQ, two blocks in an instruction and sixteen under way.

   libsrtp asks OpenSSL for a dozen small things about each packet, and its state of a viewer is spread over dozens of
   cache lines, which have gone cold when the next frame comes. The instructions take the same time whatever the key and
   the data are.

   The hash works on octets in reverse order, with a key that was multiplied by x before, so that products need not be
   shifted (Gueron and Kounavis, "Intel Carry-Less Multiplication Instruction and its Usage for Computing the GCM Mode";
   the reduction by two multiplications is that of Linux, arch/x86/crypto/aes-gcm-avx10-x86_64.S). */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cipher.h"

#if defined(__x86_64__) && (__GNUC__ >= 11 || __clang_major__ >= 12)

#include <cpuid.h>
#include <immintrin.h>

#define FAST __attribute__((target("avx2,aes,pclmul,vaes,vpclmulqdq")))
#define ALWAYS FAST __attribute__((always_inline)) static inline

enum {
    BLOCK = 16,
    ROUNDS = 10,
    PAIRS = 4,
    STEP = 2 * PAIRS * BLOCK,
    CONTROL = 8,                /* octets of an RTCP packet that stay readable */
    TRAILER = 4,                /* the index of an SRTCP packet, and whether it is encrypted */
    WINDOW = 128                /* indices behind the newest that may still come: as many as libsrtp has */
};

/* From STEP - n on: n octets that are kept, and zeroes. */
static const uint8_t KEPT[2 * STEP] = {[0 ... STEP - 1] = 0xFF};

static const uint32_t INDEX = 0x7FFFFFFF, ENCRYPTED = 0x80000000;

_Static_assert(BC_POWERS == sizeof((bc_keys *)0)->powers / BLOCK, "the header says it twice");
_Static_assert(BC_POWERS * BLOCK == STEP + BLOCK, "the last step and the lengths are hashed together");
_Static_assert(WINDOW == 8 * sizeof((bc_speaker *)0)->seen, "a bit for each index");
_Static_assert(BC_NEAR == 2 * STEP, "the first round's octets are near");
_Static_assert(BC_SPEAKERS == sizeof((bc_control *)0)->speakers / sizeof(bc_speaker), "the header says it twice");

ALWAYS __m128i load(const void *at) { return _mm_loadu_si128(at); }

ALWAYS void store(void *at, __m128i value) { _mm_storeu_si128(at, value); }

/* Zeroes; compilers take `rep stos` for that many, which is slow to start. */
ALWAYS void clear(uint8_t block[STEP + BLOCK]) {
    for (int place = 0; place < STEP; place += 2 * BLOCK)
        _mm256_storeu_si256((__m256i *)(block + place), _mm256_setzero_si256());
    store(block + STEP, _mm_setzero_si128());
}

ALWAYS __m128i reversed(__m128i block) {
    return _mm_shuffle_epi8(block, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

/* --- AES -------------------------------------------------------------------------------------------------------- */

ALWAYS __m128i next_round_key(__m128i key, __m128i assisted) {
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
    return _mm_xor_si128(key, _mm_shuffle_epi32(assisted, 0xFF));
}

FAST static void expand(uint8_t rounds[ROUNDS + 1][BLOCK], const uint8_t *key) {
    __m128i now = load(key);
    store(rounds[0], now);
#define EXPAND(number, constant) \
    store(rounds[number], now = next_round_key(now, _mm_aeskeygenassist_si128(now, constant)))
    EXPAND(1, 0x01);
    EXPAND(2, 0x02);
    EXPAND(3, 0x04);
    EXPAND(4, 0x08);
    EXPAND(5, 0x10);
    EXPAND(6, 0x20);
    EXPAND(7, 0x40);
    EXPAND(8, 0x80);
    EXPAND(9, 0x1B);
    EXPAND(10, 0x36);
#undef EXPAND
}

ALWAYS __m128i encrypt(const uint8_t rounds[ROUNDS + 1][BLOCK], __m128i block) {
    block = _mm_xor_si128(block, load(rounds[0]));
    for (int round = 1; round < ROUNDS; round++)
        block = _mm_aesenc_si128(block, load(rounds[round]));
    return _mm_aesenclast_si128(block, load(rounds[ROUNDS]));
}

/* The key stream of so many pairs of blocks from `counters` on, which are the first pair. */
ALWAYS void stream(const bc_keys *keys, __m256i counters, __m256i *found, int pairs) {
    const __m256i ends = _mm256_set_epi8(12, 13, 14, 15, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 12, 13, 14, 15, 11, 10,
                                         9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m256i two = _mm256_set_epi32(2, 0, 0, 0, 2, 0, 0, 0);
    __m256i key = _mm256_broadcastsi128_si256(load(keys->rounds[0]));
    for (int pair = 0; pair < pairs; pair++) {
        found[pair] = _mm256_xor_si256(_mm256_shuffle_epi8(counters, ends), key);
        counters = _mm256_add_epi32(counters, two);
    }
    for (int round = 1; round < ROUNDS; round++) {
        key = _mm256_broadcastsi128_si256(load(keys->rounds[round]));
        for (int pair = 0; pair < pairs; pair++)
            found[pair] = _mm256_aesenc_epi128(found[pair], key);
    }
    key = _mm256_broadcastsi128_si256(load(keys->rounds[ROUNDS]));
    for (int pair = 0; pair < pairs; pair++)
        found[pair] = _mm256_aesenclast_epi128(found[pair], key);
}

/* --- GHASH ------------------------------------------------------------------------------------------------------ */

/* Sums of products that are still to be reduced. */
typedef struct {
    __m128i low, middle, high;
} products;

ALWAYS void multiply(products *sums, __m128i block, __m128i power) {
    sums->low = _mm_xor_si128(sums->low, _mm_clmulepi64_si128(block, power, 0x00));
    sums->middle = _mm_xor_si128(sums->middle, _mm_clmulepi64_si128(block, power, 0x01));
    sums->middle = _mm_xor_si128(sums->middle, _mm_clmulepi64_si128(block, power, 0x10));
    sums->high = _mm_xor_si128(sums->high, _mm_clmulepi64_si128(block, power, 0x11));
}

ALWAYS __m128i reduced(products sums) {
    const __m128i polynomial = _mm_set_epi64x((long long)0xC200000000000000u, 1);
    __m128i middle = _mm_xor_si128(sums.middle, _mm_shuffle_epi32(sums.low, 0x4E));
    middle = _mm_xor_si128(middle, _mm_clmulepi64_si128(polynomial, sums.low, 0x01));
    __m128i high = _mm_xor_si128(sums.high, _mm_shuffle_epi32(middle, 0x4E));
    return _mm_xor_si128(high, _mm_clmulepi64_si128(polynomial, middle, 0x01));
}

/* `hash` with that many more blocks. */
ALWAYS __m128i hashed(const bc_keys *keys, __m128i hash, const uint8_t *blocks, uint32_t count) {
    products sums = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
    for (uint32_t number = 0; number < count; number++) {
        __m128i block = _mm_xor_si128(reversed(load(blocks + (size_t)BLOCK * number)), hash);
        multiply(&sums, block, load(keys->powers[BC_POWERS - count + number]));
        hash = _mm_setzero_si128();
    }
    return reduced(sums);
}

/* The same for that many pairs of blocks, and behind them one block more, which is already reversed. */
ALWAYS __m128i hashed_pairs(const bc_keys *keys, __m128i hash, const __m256i *blocks, uint32_t pairs, uint32_t power,
                            const __m128i *more) {
    const __m256i reversal = _mm256_broadcastsi128_si256(
        _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    __m256i low = _mm256_setzero_si256(), middle = low, high = low;
    for (uint32_t pair = 0; pair < pairs; pair++) {
        __m256i block = _mm256_shuffle_epi8(blocks[pair], reversal);
        __m256i both = _mm256_loadu_si256((const void *)keys->powers[power + 2 * pair]);
        if (pair == 0)
            block = _mm256_xor_si256(block, _mm256_zextsi128_si256(hash));
        low = _mm256_xor_si256(low, _mm256_clmulepi64_epi128(block, both, 0x00));
        middle = _mm256_xor_si256(middle, _mm256_clmulepi64_epi128(block, both, 0x01));
        middle = _mm256_xor_si256(middle, _mm256_clmulepi64_epi128(block, both, 0x10));
        high = _mm256_xor_si256(high, _mm256_clmulepi64_epi128(block, both, 0x11));
    }
#define SUM(value) _mm_xor_si128(_mm256_castsi256_si128(value), _mm256_extracti128_si256(value, 1))
    products sums = {SUM(low), SUM(middle), SUM(high)};
#undef SUM
    if (more != NULL)
        multiply(&sums, pairs ? *more : _mm_xor_si128(*more, hash), load(keys->powers[BC_POWERS - 1]));
    return reduced(sums);
}

/* The same for the eight blocks of a step. */
ALWAYS __m128i hashed_step(const bc_keys *keys, __m128i hash, const __m256i blocks[PAIRS]) {
    return hashed_pairs(keys, hash, blocks, PAIRS, 1, NULL);
}

FAST static void find_powers(bc_keys *keys) {
    __m128i key = reversed(encrypt(keys->rounds, _mm_setzero_si128()));
    __m128i carries = _mm_srai_epi32(_mm_shuffle_epi32(key, 0xD3), 31);
    const __m128i carried = _mm_set_epi64x((long long)0xC200000000000001u, 1);
    key = _mm_xor_si128(_mm_add_epi64(key, key), _mm_and_si128(carries, carried));
    __m128i power = key;
    for (int place = BC_POWERS - 1;; place--) {
        store(keys->powers[place], power);
        if (place == 0)
            return;
        products sums = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
        multiply(&sums, power, key);
        power = reduced(sums);
    }
}

/* --- GCM -------------------------------------------------------------------------------------------------------- */

/* Encrypt or decrypt pairs of blocks; `secret` gets what of them is hashed. */
ALWAYS void combine(uint8_t *to, const uint8_t *from, const __m256i *stream, __m256i *secret, int pairs, int decrypts) {
    for (int pair = 0; pair < pairs; pair++) {
        size_t place = (size_t)2 * BLOCK * (size_t)pair;
        __m256i before = _mm256_loadu_si256((const __m256i *)(from + place));
        __m256i after = _mm256_xor_si256(before, stream[pair]);
        secret[pair] = decrypts ? before : after;
        _mm256_storeu_si256((__m256i *)(to + place), after);
    }
}

/* Encrypt or decrypt `size` octets and return the tag over them and the `opens` octets that stay open. All of
   them are read where they are written, or only the first BC_NEAR and the others from `more` on, which is not NULL. */
ALWAYS __m128i crypt(const bc_keys *keys, __m128i nonce, const uint8_t *open, uint32_t opens, uint8_t *text,
                     const uint8_t *more, uint32_t size, int decrypts) {
    const __m128i mask = encrypt(keys->rounds, _mm_insert_epi8(nonce, 1, 15));
    /* The counter stands in the last word, the lowest octet first, until it is used. */
    __m256i counters = _mm256_add_epi32(_mm256_broadcastsi128_si256(nonce), _mm256_set_epi32(3, 0, 0, 0, 2, 0, 0, 0));
    const __m256i eight = _mm256_set_epi32(8, 0, 0, 0, 8, 0, 0, 0), sixteen = _mm256_add_epi32(eight, eight);

    uint8_t rest[STEP + BLOCK];
    __m128i hash = _mm_setzero_si128();
    for (uint32_t at = 0, some; at < opens; at += some) {
        some = opens - at < STEP ? opens - at : STEP;
        clear(rest);
        memcpy(rest, open + at, some);
        hash = hashed(keys, hash, rest, (some + BLOCK - 1) / BLOCK);
    }

    uint8_t *const end = text + size;
    const uint8_t *from = text;
    __m256i blocks[2 * PAIRS], secret[2 * PAIRS];
    while (end - text >= 2 * STEP) {
        stream(keys, counters, blocks, 2 * PAIRS);
        counters = _mm256_add_epi32(counters, sixteen);
        combine(text, from, blocks, secret, 2 * PAIRS, decrypts);
        hash = hashed_step(keys, hash, secret);
        hash = hashed_step(keys, hash, secret + PAIRS);
        from = more != NULL ? more : from + 2 * STEP;
        more = NULL;
        text += 2 * STEP;
    }
    if (end - text >= STEP) {
        stream(keys, counters, blocks, PAIRS);
        counters = _mm256_add_epi32(counters, eight);
        combine(text, from, blocks, secret, PAIRS, decrypts);
        hash = hashed_step(keys, hash, secret);
        from += STEP;
        text += STEP;
    }
    const uint32_t left = (uint32_t)(end - text), whole = (left + BLOCK - 1) / BLOCK;
    if (left) {
        uint8_t given[STEP + BLOCK], found[STEP];
        clear(given);
        memcpy(given, from, left);
        stream(keys, counters, blocks, PAIRS);
        combine(found, given, blocks, secret, PAIRS, decrypts);
        memcpy(text, found, left);
        for (uint32_t pair = 0; pair < PAIRS && !decrypts; pair++) {
            const uint8_t *kept = KEPT + STEP - left + (size_t)2 * BLOCK * pair;
            secret[pair] = _mm256_and_si256(secret[pair], _mm256_loadu_si256((const __m256i *)kept));
        }
    }
    const __m128i lengths = _mm_set_epi64x((long long)(8 * (uint64_t)opens), (long long)(8 * (uint64_t)size));
    hash = hashed_pairs(keys, hash, secret, (whole + 1) / 2, BC_POWERS - 1 - whole, &lengths);
    return _mm_xor_si128(reversed(hash), mask);
}

/* --- SRTP ------------------------------------------------------------------------------------------------------- */

/* RFC 3711 section 4.3.1: `label` is the session key's, and two more the salt's; octets 14 and 15 count blocks. */
FAST static void derive(bc_keys *keys, const uint8_t *master, uint8_t label) {
    uint8_t rounds[ROUNDS + 1][BLOCK], block[BLOCK] = {0}, derived[BLOCK];
    expand(rounds, master);
    memcpy(block, master + BLOCK, sizeof keys->salt);
    block[7] ^= label;
    store(derived, encrypt(rounds, load(block)));
    expand(keys->rounds, derived);
    block[7] ^= label ^ (label + 2);
    store(derived, encrypt(rounds, load(block)));
    memcpy(keys->salt, derived, sizeof keys->salt);
    find_powers(keys);
}

/* RFC 7714 sections 8.1 and 9.1: `ssrc` as it stands in the packet, and 48 bits of number. */
ALWAYS __m128i nonce_of(const bc_keys *keys, const uint8_t *ssrc, uint64_t number) {
    uint32_t word, high = __builtin_bswap16((uint16_t)(number >> 32)), low = __builtin_bswap32((uint32_t)number);
    memcpy(&word, ssrc, sizeof word);
    const __m128i salt = _mm_and_si128(load(keys->salt), _mm_set_epi32(0, -1, -1, -1));
    return _mm_xor_si128(salt, _mm_set_epi64x(low, (long long)((uint64_t)high << 48 | (uint64_t)word << 16)));
}

FAST static void seal(const bc_keys *keys, uint64_t sequence, uint32_t header, uint8_t *packet, const uint8_t *more,
                      uint32_t size) {
    const __m128i nonce = nonce_of(keys, packet + 8, sequence);
    store(packet + size, crypt(keys, nonce, packet, header, packet + header, more, size - header, 0));
}

/* Whether the tag is that of a packet of `size` octets, which is decrypted in place. */
FAST static int unseal(const bc_keys *keys, uint32_t trailer, uint8_t *packet, uint32_t size) {
    uint8_t open[CONTROL + TRAILER];
    const __m128i told = load(packet + size), nonce = nonce_of(keys, packet + 4, trailer & INDEX);
    __m128i tag;
    if (trailer & ENCRYPTED) {
        memcpy(open, packet, CONTROL);
        memcpy(open + CONTROL, packet + size + BLOCK, TRAILER);
        tag = crypt(keys, nonce, open, sizeof open, packet + CONTROL, NULL, size - CONTROL, 1);
    } else {
        memmove(packet + size, packet + size + BLOCK, TRAILER);
        tag = crypt(keys, nonce, packet, size + TRAILER, packet, NULL, 0, 1);
    }
    tag = _mm_xor_si128(tag, told);
    return _mm_testz_si128(tag, tag);
}

/* Whether this processor can do what is done here. */
static int is_able(void) {
    /* __builtin_cpu_supports knows what the system lets us use, but in clang 14 not the younger two by name. */
    unsigned eax, ebx, ecx, edx, both = 1u << 9 | 1u << 10;
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul")))
        return 0;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (ecx & both) == both;
}

int bc_cipher_open(bc_cipher *cipher, const uint8_t *master) {
    if (!is_able())
        return 0;
    cipher->next = 0;
    derive(&cipher->keys, master, 0);
    return 1;
}

int bc_seal(bc_cipher *cipher, uint64_t sequence, uint32_t header, void *packet, const void *more, int *size) {
    if (sequence < cipher->next)
        return 1;
    cipher->next = sequence + 1;
    seal(&cipher->keys, sequence, header, packet, more, (uint32_t)*size);
    *size += BLOCK;
    return 0;
}

int bc_control_open(bc_control *control, const uint8_t *master) {
    if (!is_able())
        return 0;
    memset(control, 0, sizeof *control);
    derive(&control->keys, master, 3);
    return 1;
}

/* Where what is known of this SSRC stands, or is to stand; NULL: there are too many. */
static bc_speaker *speaker_of(bc_control *control, uint32_t ssrc) {
    for (uint32_t number = 0; number < control->known; number++)
        if (control->speakers[number].ssrc == ssrc)
            return &control->speakers[number];
    if (control->known == BC_SPEAKERS)
        return NULL;
    bc_speaker *speaker = &control->speakers[control->known];
    *speaker = (bc_speaker){.ssrc = ssrc};
    return speaker;
}

static int has_come(const bc_speaker *speaker, uint32_t index) {
    uint32_t place = index - speaker->first;
    return index < speaker->first || (place < WINDOW && speaker->seen[place / 64] >> place % 64 & 1);
}

static void remember(bc_speaker *speaker, uint32_t index) {
    uint32_t place = index - speaker->first;
    if (place >= WINDOW) {
        uint32_t gone = place - (WINDOW - 1);
        uint64_t low = speaker->seen[0], high = speaker->seen[1];
        speaker->seen[0] = gone < 64 ? (gone ? low >> gone | high << (64 - gone) : low)
                           : gone < WINDOW ? high >> (gone - 64) : 0;
        speaker->seen[1] = gone < 64 ? high >> gone : 0;
        speaker->first += gone;
        place = WINDOW - 1;
    }
    speaker->seen[place / 64] |= (uint64_t)1 << place % 64;
}

int bc_unseal(bc_control *control, void *packet, int *size) {
    uint8_t *data = packet;
    if (*size < CONTROL + BLOCK + TRAILER)
        return 1;
    uint32_t ssrc, trailer, length = (uint32_t)*size - BLOCK - TRAILER;
    memcpy(&ssrc, data + 4, sizeof ssrc);
    memcpy(&trailer, data + length + BLOCK, sizeof trailer);
    trailer = __builtin_bswap32(trailer);
    bc_speaker *speaker = speaker_of(control, ssrc);
    if (speaker == NULL || has_come(speaker, trailer & INDEX) || !unseal(&control->keys, trailer, data, length))
        return 1;
    if (speaker == &control->speakers[control->known])
        control->known++;
    remember(speaker, trailer & INDEX);
    *size = (int)length;
    return 0;
}

#else

int bc_cipher_open(bc_cipher *cipher, const uint8_t *master) {
    (void)cipher;
    (void)master;
    return 0;
}

int bc_seal(bc_cipher *cipher, uint64_t sequence, uint32_t header, void *packet, const void *more, int *size) {
    (void)cipher;
    (void)sequence;
    (void)header;
    (void)packet;
    (void)more;
    (void)size;
    return 1;
}

int bc_control_open(bc_control *control, const uint8_t *master) {
    (void)control;
    (void)master;
    return 0;
}

int bc_unseal(bc_control *control, void *packet, int *size) {
    (void)control;
    (void)packet;
    (void)size;
    return 1;
}

#endif
