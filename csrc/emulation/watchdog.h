// Ends the program where a thread of a kernel goes round without ever meeting another: no one else would notice.
#pragma once

#include <functional>
#include <string>

namespace mdprop::emulation {

// Watches while it lives. Unless beat() is called again within MDPROP_EMULATION_SECONDS (60), what `describe` says is
// printed and the program ends. One at a time.
class Watch {
 public:
  explicit Watch(const std::function<std::string()>& describe);
  ~Watch();
  Watch(const Watch&) = delete;

  void beat();
};

}  // namespace mdprop::emulation
