// Asks about and allocates the memory of this machine.
#pragma once

#include <cstddef>
#include <memory>

namespace kshot {

/// Bytes of memory that this machine has; 0 where the system does not say.
double physical_memory();

inline constexpr std::size_t huge_page = std::size_t{2} << 20;
/// Allocates `bytes` of uninitialised memory, rounded up to huge pages (2 MiB). Where the system
/// has huge pages, it clears and maps them much faster than pages of 4 KiB.
std::shared_ptr<std::byte> huge_pages(std::size_t bytes);

}  // namespace kshot
