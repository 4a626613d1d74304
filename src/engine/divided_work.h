// Work on many items, divided among the ranks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include "backend/task_tree.h"
#include "base/archive.h"
#include "kshot/communicator.h"

namespace kshot {

/// The items of a job and the portions in which the ranks share them.
struct WorkDivision {
  std::size_t total = 0;    ///< number of items
  std::size_t portion = 1;  ///< number of items whose results all ranks exchange together
  std::size_t unit = 1;     ///< every rank gets a multiple of this number of items
  const char* what = "";    ///< name of the results in messages
};

/// Calls work(first, count, put) for ranges of the items, in ascending order. `work` calls
/// put(result) for its results, in the order of the items. take(result) then gets all results, one
/// at a time and in the order of the items. With several ranks, each rank works on a part of every
/// `portion` items, and `take` runs on every rank. `Result` needs fields(archive, result)
/// (base/archive.h), which packs it for the other ranks. `ranks` may be null.
template <class Result, class Work, class Take>
void divide_work(Communicator* ranks, const WorkDivision& division, const Work& work,
                 const Take& take) {
  for (std::size_t begin = 0; begin < division.total;) {
    const std::size_t count = std::min(division.total - begin, division.portion);
    if (ranks == nullptr) {
      work(begin, count, [&](Result result) { take(std::move(result)); });
    } else {
      const backend::TaskShares shares(count, division.unit, ranks->rank(), ranks->size());
      Pack mine;
      if (shares.count() > 0) {
        work(begin + shares.first(), shares.count(), [&](Result result) { mine(result); });
      }
      for (const Communicator::Bytes& bytes : ranks->all_gather(mine.take(), division.what)) {
        for (Unpack of(bytes); !of.done();) {
          Result result;
          of(result);
          take(std::move(result));
        }
      }
    }
    begin += count;
  }
}

}  // namespace kshot
