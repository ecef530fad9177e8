/* Gives hostile datagrams to the readers of RTCP and of consent checks. A target for libFuzzer; without it (-DALONE) a
   fuzzer of its own.

   Alone: fuzzer SECONDS SEED FOLDER. Prints how many inputs there were and returns 0 when every promise held. */

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "feedback.c"

#include "consent.h"

#include "require.h"

enum { CAPACITY = 64, SSRC = 0x11111111 };

static void check(const bc_feedback *feedback, const bc_feedback *before, int accepted) {
    REQUIRE(feedback->asked <= BC_MAX_LOST && feedback->arrived <= feedback->capacity);
    REQUIRE(feedback->asked >= before->asked && feedback->arrived >= before->arrived);
    REQUIRE(feedback->pictures_lost <= before->pictures_lost + 1);
    REQUIRE(feedback->cumulative_lost >= -0x800000 && feedback->cumulative_lost <= 0x7FFFFF);
    if (!accepted) /* the lists' unused ends may differ, nothing else */
        REQUIRE(memcmp(feedback, before, offsetof(bc_feedback, lost)) == 0);
    for (uint32_t place = before->arrived; place < feedback->arrived; place++)
        REQUIRE(feedback->arrivals[place].received <= 1);
}

/* An estimator that was told of packets with all numbers that feedback can name. */
static void estimate(const uint8_t *packet, size_t size, bc_arrival *arrivals) {
    bc_path_settings settings = {
        .gap = 0.012, .longest = 0.05, .slot = 0.05, .loss_slot = 0.25, .floor = 30, .dark = 1, .stall = 0.2, .alarming = 0.25, .guard = 0.025, .standing = 0.2, .back_off = 0.9,
        .hold = 0.4, .severe = 0.08, .shows = 1.3, .inherent = 0.5, .scales = 1.1, .alike = 0.8, .judge = 2.5, .forget = 0.3, .burst_age = 4,
        .span = 1, .smoothing = 0.7, .gain = 4, .threshold = 12.5, .lowest = 6, .highest = 600, .up = 0.0087,
        .down = 0.039, .longest_step = 0.1, .outlier = 15, .overuse = 0.01, .runs = 128, .window = 10, .short_window = 5,
        .loss_slots = 8, .burst = 5, .bursts = 5, .stretches = 4, .points = 20, .delays = 8, .full = 60,
        .rise = 0.05, .leap = 0.7, .dip = 0.3, .step = 0.005, .rises = 3};
    bc_path *path = malloc(sizeof *path);
    bc_path_open(path, &settings);
    bc_feedback feedback = {.arrivals = arrivals, .capacity = CAPACITY, .ssrc = SSRC, .path = path};
    for (uint32_t turn = 0; turn < 4; turn++) {
        for (uint32_t run = 0; run < 150; run++)
            bc_path_sent(path, turn + 0.005 * run, (uint16_t)(440 * (150 * turn + run)), 440, 500000);
        bc_reduce(packet, size, turn + 0.9, &feedback);
        REQUIRE(feedback.arrived == 0);
        REQUIRE(!(path->estimate < 0) && !(path->delay < 0) && path->usual_loss >= 0 && path->usual_loss <= 1);
        REQUIRE(isnan(path->estimate) || isfinite(path->estimate));
        bc_path_capacity(path, turn + 1);
    }
    free(path);
}

/* As a check that somebody without the password sends, and as one of the viewer's with these attributes. */
static void consent(const uint8_t *packet, size_t size, uint8_t *answer) {
    static const uint8_t ufrag[] = "ufrag", password[] = "a password of 24 octets.", address[16] = {2, 0, 1};
    bc_consent consent = {.socket = 7, .nomination = -1, .address_size = sizeof address};
    memcpy(consent.address, address, sizeof address);
    REQUIRE(bc_consent_open(&consent, ufrag, sizeof ufrag - 1, password, sizeof password - 1));
    bc_consent before = consent;
    if (bc_consent_answer(&consent, packet, (uint32_t)size, 7, address, sizeof address, 1, answer) == 0)
        REQUIRE(memcmp(&consent, &before, sizeof consent) == 0);

    uint32_t attributes = (uint32_t)(size < 460 ? size & ~(size_t)3 : 460), body = 12 + attributes + 24;
    uint8_t *check = malloc(20 + body);
    memset(check, 0, 20 + body);
    memcpy(check, (uint8_t[]){0, 1, (uint8_t)(body >> 8), (uint8_t)body, 0x21, 0x12, 0xA4, 0x42}, 8);
    memcpy(check + 20, (uint8_t[]){0, 6, 0, 7}, 4);
    memcpy(check + 24, "ufrag:x", 7);
    if (attributes)
        memcpy(check + 32, packet, attributes);
    memcpy(check + 32 + attributes, (uint8_t[]){0, 8, 0, 20}, 4);
    bc_consent_sign(&consent, check, 32 + attributes, check + 36 + attributes);
    uint32_t length = bc_consent_answer(&consent, check, 20 + body, 7, address, sizeof address, 1, answer);
    REQUIRE(length == 0 || length == 64);
    REQUIRE(consent.checks == before.checks + (length > 0));
    free(check);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    /* Arrays of exactly the promised size, where the sanitizer sees the octet behind them. */
    uint8_t *packet = malloc(size + !size);
    bc_arrival *arrivals = malloc(CAPACITY * sizeof *arrivals);
    if (size)
        memcpy(packet, data, size);
    bc_feedback feedback = {.arrivals = arrivals, .capacity = CAPACITY, .ssrc = SSRC};
    for (int turn = 0; turn < 3; turn++) {
        bc_feedback before = feedback;
        check(&feedback, &before, bc_reduce(packet, size, turn, &feedback));
    }
    bc_feedback deaf = {.ssrc = SSRC}, before = deaf;
    check(&deaf, &before, bc_reduce(packet, size, 0.0, &deaf));
    estimate(packet, size, arrivals);
    uint8_t *answer = malloc(96);
    consent(packet, size, answer);
    free(answer);
    free(arrivals);
    free(packet);
    return 0;
}

#ifdef ALONE

enum { LONGEST = 2048, SAMPLES = 256 };

static struct {
    uint8_t data[LONGEST];
    size_t size;
} samples[SAMPLES];

#include "noise.h"

static uint32_t load(const char *folder) {
    uint32_t count = 0;
    DIR *entries = opendir(folder);
    REQUIRE(entries != NULL);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL && count < SAMPLES;) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", folder, entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(name, "rb");
        if (file == NULL)
            continue;
        samples[count].size = fread(samples[count].data, 1, LONGEST, file);
        count++;
        fclose(file);
    }
    closedir(entries);
    return count;
}

/* Octets that decide: lengths, counts and types beyond what is there. */
static const uint8_t interesting[] = {0, 1, 2, 3, 4, 7, 14, 15, 0x1F, 0x3F, 0x7F, 0x80, 0x81, 0x8F, 0xA1, 0xAF, 0xC0,
                                      0xC8, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xE0, 0xFE, 0xFF};

static size_t mutate(uint8_t *data, size_t size, uint32_t count) {
    for (uint32_t change = draw(8); change > 0; change--) {
        size_t at = size ? draw((uint32_t)size) : 0;
        switch (draw(6)) {
        case 0:
            if (size)
                data[at] ^= (uint8_t)(1u << draw(8));
            break;
        case 1:
            if (size)
                data[at] = interesting[draw(sizeof interesting)];
            break;
        case 2:
            if (size)
                data[at] = (uint8_t)draw(256);
            break;
        case 3:
            size = at;
            break;
        case 4: { /* another sample behind it, as in a compound */
            uint32_t other = draw(count);
            if (size + samples[other].size <= LONGEST) {
                memcpy(data + size, samples[other].data, samples[other].size);
                size += samples[other].size;
            }
            break;
        }
        default: { /* four octets more, and a header that knows */
            if (size < 4 || size + 4 > LONGEST)
                break;
            at &= ~(size_t)3;
            memmove(data + at + 4, data + at, size - at);
            for (int octet = 0; octet < 4; octet++)
                data[at + (size_t)octet] = interesting[draw(sizeof interesting)];
            size += 4;
            if (draw(4))
                data[3]++;
        }
        }
    }
    return size;
}

int main(int count, char **arguments) {
    REQUIRE(count == 4);
    time_t end = time(NULL) + atol(arguments[1]);
    noise = 88172645463325252ull ^ strtoull(arguments[2], NULL, 10);
    uint32_t found = load(arguments[3]);
    REQUIRE(found > 0);
    for (uint32_t sample = 0; sample < found; sample++)
        LLVMFuzzerTestOneInput(samples[sample].data, samples[sample].size);
    uint64_t inputs = 0;
    uint8_t data[LONGEST];
    do
        for (int burst = 0; burst < 1000; burst++, inputs++) {
            uint32_t sample = draw(found);
            memcpy(data, samples[sample].data, samples[sample].size);
            LLVMFuzzerTestOneInput(data, mutate(data, samples[sample].size, found));
        }
    while (time(NULL) < end);
    printf("%llu inputs\n", (unsigned long long)inputs);
    return 0;
}

#endif
