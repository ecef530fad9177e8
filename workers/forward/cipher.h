/* AEAD_AES_128_GCM of SRTP (RFC 7714), for what libsrtp does at four times the cost of its AES. Also read by cffi,
   which knows neither conditions nor includes. */

#define BC_POWERS 9
#define BC_SPEAKERS 8
#define BC_NEAR 256

/* Session keys: the few lines of memory that a packet needs lie together. */
typedef struct {
    uint8_t salt[12];
    uint8_t rounds[11][16];
    uint8_t powers[9][16];  /* of the hash key, the highest first */
} bc_keys;

/* For what one SSRC sends. */
typedef struct {
    uint64_t next;          /* the lowest extended sequence number that may still come */
    bc_keys keys;
} bc_cipher;

/* What has come from an SSRC (RFC 3711 section 3.3.2). */
typedef struct {
    uint32_t ssrc;          /* as it stands in packets */
    uint32_t first;         /* the lowest index that may still come */
    uint64_t seen[2];       /* bit n: the index first + n has come */
} bc_speaker;

/* For the RTCP that one side sends, whatever SSRCs it speaks for: each counts its packets by itself. */
typedef struct {
    bc_keys keys;
    uint32_t known;
    bc_speaker speakers[8]; /* never forgotten, so that nothing can be repeated; of more SSRCs nothing is taken */
} bc_control;

/* Derive session keys from 16 octets of master key and 12 of master salt, as libsrtp does. Returns 0, and does nothing,
   on a processor without the instructions that this needs. */
int bc_cipher_open(bc_cipher *cipher, const uint8_t *master);
int bc_control_open(bc_control *control, const uint8_t *master);

/* Protect an RTP packet of `*size` octets in place and add the tag's 16, as srtp_protect does. `header` octets stay
   readable: all up to the payload. `sequence` is the extended number, of which the packet has the lower half. Of the
   payload all but the first BC_NEAR octets are read from `more`, so that they need not be copied before; NULL: from
   the packet.

   Returns 0, or 1 for a number that is not above all before it: twice the same would give the key away. */
int bc_seal(bc_cipher *cipher, uint64_t sequence, uint32_t header, void *packet, const void *more, int *size);

/* Decrypt an SRTCP packet of `*size` octets in place, as srtp_unprotect_rtcp does. Returns 0, or 1 when it is too short,
   forged or repeated; then its octets mean nothing any more. */
int bc_unseal(bc_control *control, void *packet, int *size);
