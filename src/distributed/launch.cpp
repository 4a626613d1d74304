#include "distributed/launch.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "distributed/mpi.h"
#include "kshot/communicator.h"
#include "kshot/error.h"

namespace kshot {
namespace {

/// The number in an environment variable. 0 where the variable is not set or holds something else.
int number(const std::function<const char*(const char*)>& get, const char* name) {
  const char* const text = get(name);
  if (text == nullptr) return 0;
  int value = 0;
  const char* const end = text + std::strlen(text);
  const auto [stop, fault] = std::from_chars(text, end, value);
  return fault == std::errc() && stop == end ? value : 0;
}

}  // namespace

Launch detect_launch(const std::function<const char*(const char*)>& get) {
  // The variables of Open MPI, of MPICH and Intel MPI (Hydra; also srun --mpi=pmi2), and of
  // MVAPICH.
  for (const std::string name : {"OMPI_COMM_WORLD", "PMI", "MV2_COMM_WORLD"}) {
    if (const int size = number(get, (name + "_SIZE").c_str()); size > 0) {
      return {get("SLURM_STEP_ID") != nullptr ? "srun" : "mpirun", size, true,
              number(get, (name + "_RANK").c_str())};
    }
  }
  // A batch script also has SLURM_NTASKS, although it is one process. Only srun sets the number of
  // tasks of a step.
  if (const int size = number(get, "SLURM_STEP_NUM_TASKS"); size > 1) {
    return {"srun", size, true, number(get, "SLURM_PROCID"), get("PMIX_RANK") != nullptr};
  }
  if (const int size = number(get, "WORLD_SIZE"); size > 1 && get("RANK") != nullptr) {
    return {"torchrun", size, false, number(get, "RANK")};
  }
  return {};
}

std::shared_ptr<Communicator> launched_ranks() {
  const char* const setting = std::getenv("KSHOT_RANKS");
  if (setting != nullptr && std::string(setting) == "off") return nullptr;
  if (setting != nullptr && std::string(setting) != "auto") {
    throw Error(fmt::format("KSHOT_RANKS = \"{}\": expected auto or off", setting));
  }
  if (mpi_initialised()) return open_mpi();
  const Launch launch = detect_launch([](const char* name) { return std::getenv(name); });
  if (launch.size <= 1) return nullptr;
  if (!launch.mpi) {
    throw Error(fmt::format(
        "{} started {} processes, but kshot's ranks come from MPI; expected mpirun -n {} or srun",
        launch.launcher, launch.size, launch.size));
  }
  if (mpi_library().empty()) {
    throw Error(fmt::format(
        "{} started {} processes, but this kshot was built without MPI; expected one process, or a "
        "build where MPI is found (Debian and Ubuntu: apt-get install libopenmpi-dev)",
        launch.launcher, launch.size));
  }
  // Under srun without PMIx or PMI, Open MPI prints a page of text and ends the process. MPICH goes
  // on alone.
  const bool open_mpi_alone = !launch.offers_pmi && mpi_library().starts_with("Open MPI");
  std::shared_ptr<Communicator> ranks = open_mpi_alone ? nullptr : open_mpi();
  if (ranks == nullptr) {
    throw Error(fmt::format(
        "{} started {} processes, but MPI ({}) sees one; expected the mpirun of that MPI, or srun "
        "with its plugin (--mpi=pmix for Open MPI, --mpi=pmi2 for MPICH)",
        launch.launcher, launch.size, mpi_library()));
  }
  return ranks;
}

}  // namespace kshot
