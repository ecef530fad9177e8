/* What viewers report, reduced. Also read by cffi, which knows neither conditions nor includes. */

#define BC_MAX_LOST 256

/* One packet that transport-wide feedback speaks of. */
typedef struct {
    uint32_t ticks;         /* when it arrived, in units of 250 microseconds of the viewer's clock, modulo 2^32 */
    uint16_t sequence;      /* transport-wide */
    uint8_t received;       /* 0: lost, and `ticks` is 0 */
    uint8_t unused;
} bc_arrival;

typedef struct bc_path bc_path; /* estimate.h */

/* Everything that a viewer said about one medium since this was last emptied. What counts from 0 is emptied by 0. */
typedef struct {
    bc_arrival *arrivals;   /* room for `capacity`; what comes when it is full is forgotten */
    bc_path *path;          /* takes the arrivals at once; NULL: they stay for whoever asks */
    uint64_t remb;          /* bit/s, at most 2^64 - 1 */
    double reported_at;     /* monotonic seconds, of the last report block */
    double remb_at;
    uint32_t capacity;
    uint32_t arrived;       /* entries of `arrivals` */
    uint32_t ssrc;          /* the medium */
    uint32_t highest_sequence, jitter, lsr, dlsr;  /* of the last report block, RFC 3550 section 6.4.1 */
    int32_t cumulative_lost;
    uint32_t pictures_lost; /* packets with PLI or FIR */
    uint16_t asked;         /* entries of `lost` */
    uint8_t fraction_lost;
    uint8_t reported;       /* whether there is a report block */
    uint8_t estimated;      /* whether there is a REMB */
    uint8_t goodbye;
    uint16_t lost[256];     /* sequence numbers that NACKs ask for, in the order asked */
} bc_feedback;

/* Add what a decrypted compound packet that came at `now` says. Returns 0, and adds nothing, when it is no RTCP. */
int bc_reduce(const uint8_t *packet, size_t length, double now, bc_feedback *feedback);
