// The memory of this machine.
#pragma once

#include <cstddef>
#include <memory>

namespace kshot {

/// Bytes of memory that this machine has; 0 where the system does not say.
double physical_memory();

inline constexpr std::size_t huge_page = std::size_t{2} << 20;
/// `bytes` of memory that is not initialised, rounded up to huge pages, which the system takes
/// where it has them: it then clears and maps the memory much faster than in pages of 4 KiB.
std::shared_ptr<std::byte> huge_pages(std::size_t bytes);

}  // namespace kshot
