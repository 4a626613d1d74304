// CRC-32C (Castagnoli polynomial, as in iSCSI, RFC 3720 B.4).
#pragma once

#include <cstdint>
#include <string_view>

namespace kshot::io {

/// Checksum of `data`. `previous` is the checksum of the bytes before `data`.
std::uint32_t crc32c(std::string_view data, std::uint32_t previous = 0);

}  // namespace kshot::io
