/* CRC-64 as Go's hash/crc64 has it with its table ISO (polynomial 0xD800000000000000, reversed): what tar-split has of
 * each file. `crc` is 0 at the beginning, and what came before after that. */
#ifndef LS_CRC64_H
#define LS_CRC64_H
#include <stddef.h>
#include <stdint.h>

uint64_t ls_crc64(uint64_t crc, const uint8_t *data, size_t length);
#endif
