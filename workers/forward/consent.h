/* Consent checks of viewers that play: STUN Binding requests that change nothing and only want to be answered. Whatever
   else is STUN is Python's (workers/transport/stun.py explains it). Also read by cffi, which knows neither conditions
   nor includes. */

#define BC_CHECKS 64

/* What a viewer's checks must be like, so that they are answered here. Zeroed, it answers none. */
typedef struct {
    double checked_at;      /* monotonic seconds, of the last check that was answered here; reset by Python */
    int64_t nomination;     /* the highest so far, -1 for none: a higher one is Python's */
    uint64_t checks;        /* that were answered here */
    uint32_t inner[5], outer[5];    /* SHA-1 behind the two pads of the password */
    int32_t socket;         /* file descriptor of the path to the viewer */
    uint8_t address[28];    /* the viewer's, sockaddr_in or sockaddr_in6 */
    uint8_t address_size;
    uint8_t ufrag_size;     /* 0: nothing is answered */
    uint8_t ufrag[32];
    uint8_t seen[64][12];   /* transaction ids of the last checks, a ring: the newest is number checks - 1 */
} bc_consent;

/* Answer checks with these credentials, `password` of at most 64 octets and `ufrag` of at most 32; returns 0 for others.
   The rest stays as it is. */
int bc_consent_open(bc_consent *consent, const uint8_t *ufrag, uint32_t ufrag_size, const uint8_t *password,
                    uint32_t password_size);

/* HMAC-SHA1 of `size` octets under the password: 20 octets. */
void bc_consent_sign(const bc_consent *consent, const uint8_t *data, uint32_t size, uint8_t *digest);

/* Write the answer to a check that came to `socket` from `address` to `answer` (96 octets), and return its size; 0 when
   it is not to be answered here. A check that is answered counts, and was `now`. */
uint32_t bc_consent_answer(bc_consent *consent, const uint8_t *data, uint32_t size, int socket, const void *address,
                           uint32_t address_size, double now, uint8_t *answer);
