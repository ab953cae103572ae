// Runs before the first paint, so that a chosen theme never flashes as the other one.
(function () {
  try {
    var chosen = localStorage.getItem("tidecast.theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch { /* storage is switched off: the system's theme */ }
})();
