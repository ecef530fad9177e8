/* What the kernel and Python share. Also read by cffi, which knows neither conditions nor includes.

   Needs cipher.h and estimate.h. */

/* A frame that a viewer was sent: enough to tell any of its packets by sequence number. */
typedef struct {
    uint64_t first;         /* extended sequence number of its first packet */
    uint64_t serial;        /* of the frame, in the fan-out that sent it */
    double at;              /* monotonic seconds */
    uint32_t timestamp;     /* RTP */
    uint32_t size;          /* octets of the frame */
    uint8_t descriptor[6];  /* of its first packet */
} bc_record;

/* What differs where a viewer is sent sound: a stream of its own, whose payload has no descriptor. */
typedef struct {
    uint64_t sequence;      /* extended number of the next packet */
    uint64_t packets, octets;
    uint32_t ssrc;
    uint8_t payload_type;
    uint8_t time_at, transport_at, extensions_size; /* as in bc_outlet, and the numbers are the outlet's */
    uint8_t extensions[32];
} bc_sound;

/* The sending state of one viewer. */
typedef struct {
    void *srtp;             /* libsrtp's srtp_t */
    bc_cipher *cipher;      /* protects media; NULL: `srtp` does. Never changed once a packet has left */
    bc_path *path;          /* is told what leaves under transport-wide numbers; NULL: nobody is */
    bc_record *records;     /* a ring of `capacity` records, of which the newest is number recorded - 1 */
    uint64_t recorded;
    uint64_t sequence;      /* extended number of the next packet */
    uint64_t packets, octets, drops;
    bc_sound *sound;        /* NULL: it hears nothing */
    uint32_t capacity;
    uint32_t ssrc;
    uint32_t timestamp;     /* of the last frame */
    int32_t socket;         /* file descriptor; negative: served by Python */
    uint16_t picture_id;    /* of the last frame */
    uint16_t transport_sequence;  /* of the next packet */
    uint8_t tl0, key_index; /* of the last frame */
    uint8_t payload_type;
    uint8_t tag_size;       /* octets that SRTP adds */
    uint8_t segmentation;   /* whether the route takes UDP_SEGMENT */
    uint8_t time_at;        /* where in `extensions` abs-send-time's 3 octets stand; 0: not negotiated */
    uint8_t transport_at;   /* where the transport-wide sequence number's 2 octets stand; 0: not negotiated */
    uint8_t extensions_size;
    uint8_t address_size;
    uint8_t extensions[32]; /* the whole block with its profile word */
    uint8_t address[28];    /* sockaddr_in or sockaddr_in6 */
} bc_outlet;

/* A frame to send, or a part of one: packets `first` to `end` - 1, where 0 is the frame's first. Of sound it is a
   packet's payload, with `timestamp` and the three that tell time; the rest does not matter. */
typedef struct {
    const uint8_t *payload;
    uint64_t serial;
    double now;             /* monotonic seconds */
    double offset;          /* wall clock minus monotonic clock, seconds */
    uint32_t size;          /* octets, 1 to BC_MAX_FRAME */
    uint32_t timestamp;     /* RTP */
    uint32_t first, end;
    uint8_t keyframe, layer, sync;
    uint8_t frozen;         /* stamp everything with `now` instead of reading the clock for each viewer */
} bc_frame;

typedef struct bc_kernel bc_kernel;

/* `protect` is libsrtp 2's srtp_protect. NULL without memory. Not to be used by two threads at once. */
bc_kernel *bc_open(void *protect);
void bc_close(bc_kernel *kernel);

/* Send a frame to every outlet; return the number of packets that left, or -1 when the frame's shape is impossible.
   `skipped` gets the number of outlets left to Python (socket < 0). Blocks for 3 ms at most.

   Of a frame in parts an outlet gets all, in order, before it gets another frame; a part that does not continue what
   went before counts in `drops`. */
int64_t bc_send(bc_kernel *kernel, bc_outlet *const *outlets, uint32_t count, const bc_frame *frame, uint32_t *skipped);

/* The same for one packet of sound, which has no parts. -1 too when it is larger than a packet's share of a frame. */
int64_t bc_send_sound(bc_kernel *kernel, bc_outlet *const *outlets, uint32_t count, const bc_frame *frame,
                      uint32_t *skipped);
