#include "base/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

namespace kshot {

double physical_memory() {
  const long pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? static_cast<double>(pages) * static_cast<double>(page) : 0.0;
}

std::shared_ptr<std::byte> huge_pages(std::size_t bytes) {
  const std::size_t rounded = (bytes + huge_page - 1) / huge_page * huge_page;
  constexpr std::align_val_t alignment{huge_page};
  std::shared_ptr<std::byte> memory(static_cast<std::byte*>(::operator new(rounded, alignment)),
                                    [](std::byte* p) { ::operator delete(p, alignment); });
#if defined(MADV_HUGEPAGE)
  ::madvise(memory.get(), rounded, MADV_HUGEPAGE);  // a failure is harmless
#endif
  return memory;
}

}  // namespace kshot
