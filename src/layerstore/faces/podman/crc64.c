/* Eight bytes at a time: a table for each of their places. See crc64.h. */
#define _GNU_SOURCE
#include "crc64.h"

#include <endian.h>
#include <pthread.h>
#include <string.h>

enum { PLACES = 8 };

static const uint64_t POLYNOMIAL = 0xD800000000000000;
static uint64_t tables[PLACES][256];

static void fill(void) {
    for (int byte = 0; byte < 256; byte++) {
        uint64_t crc = (uint64_t)byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        tables[0][byte] = crc;
    }
    for (int place = 1; place < PLACES; place++)
        for (int byte = 0; byte < 256; byte++) {
            uint64_t crc = tables[place - 1][byte];
            tables[place][byte] = crc >> 8 ^ tables[0][crc & 0xff];
        }
}

uint64_t ls_crc64(uint64_t crc, const uint8_t *data, size_t length) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill);
    crc = ~crc;
    for (; length >= PLACES; data += PLACES, length -= PLACES) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        word = le64toh(word) ^ crc;
        crc = 0;
        for (int place = 0; place < PLACES; place++)
            crc ^= tables[PLACES - 1 - place][word >> 8 * place & 0xff];
    }
    for (; length; data++, length--)
        crc = crc >> 8 ^ tables[0][(crc ^ *data) & 0xff];
    return ~crc;
}
