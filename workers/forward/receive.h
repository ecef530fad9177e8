/* A worker's sockets, emptied in batches. Also read by cffi, which knows neither conditions nor includes.

   Needs cipher.h, feedback.h and consent.h. */

#define BC_BATCH 64

/* What a viewer says over UDP, decrypted and reduced. */
typedef struct {
    bc_feedback feedback;
    bc_consent consent;
    bc_control *control;    /* decrypts what the viewer sends; NULL: `srtp` does. Never changed once a packet has come */
    void *srtp;             /* libsrtp's srtp_t */
    double rate;            /* RTCP datagrams that it may send in a second, and at once */
    double allowance;       /* how many it may send now */
    double allowed_at;      /* monotonic seconds, of the last one */
    uint64_t failures;      /* datagrams that were forged, repeated or no RTCP */
    uint64_t dropped;       /* over the rate */
    uint32_t number;        /* the viewer's, for whoever reads `urgent` */
    uint32_t shortest;      /* octets that SRTCP has at least */
} bc_inbox;

/* A datagram that is Python's to read. Both pointers hold until the next drain. */
typedef struct {
    const uint8_t *data;
    const void *address;    /* sockaddr_in or sockaddr_in6 */
    uint32_t size;
} bc_datagram;

/* What one drain found: counters, what is left to Python, and whom Python should hear at once. */
typedef struct {
    uint32_t dropped_malformed, dropped_strangers, dropped_media, heard;
    uint32_t checks, unsent;    /* checks that were answered here, and answers that did not leave */
    uint32_t left, urgent_count;
    bc_datagram datagrams[64];
    uint32_t urgent[64];    /* numbers of viewers with NACK, PLI, FIR or BYE */
} bc_batch;

typedef struct bc_receiver bc_receiver;

/* `unprotect` is libsrtp 2's srtp_unprotect_rtcp; larger datagrams than `limit` octets are dropped; `secret` are 16
   random octets. NULL without memory. Not to be used by two threads at once. */
bc_receiver *bc_receiver_open(void *unprotect, uint32_t limit, const uint8_t *secret);
void bc_receiver_close(bc_receiver *receiver);

/* From now on datagrams from this sockaddr_in or sockaddr_in6 are a viewer's: its RTCP goes into `inbox`, which must
   live until the address is forgotten; with NULL it is left to Python. Returns 0 without memory. */
int bc_learn(bc_receiver *receiver, const uint8_t *address, uint32_t size, bc_inbox *inbox);
void bc_forget(bc_receiver *receiver, const uint8_t *address, uint32_t size);

/* Take up to `count` datagrams from a socket at the monotonic time `now`. Returns how many there were. */
uint32_t bc_drain(bc_receiver *receiver, int socket, uint32_t count, double now, bc_batch *batch);
