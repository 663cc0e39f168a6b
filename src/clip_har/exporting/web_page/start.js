// Tells why the page cannot work here, or starts it. A script without imports, so that it also runs where those cannot.

"use strict";

(() => {
  // The smallest module with an instruction on 128-bit vectors.
  const vectors = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
  const missing = () => {
    if (location.protocol === "file:") {
      return "This page must come from a web server: a browser does not load the model of a page that was opened as a " +
        "file. In its folder, run: python -m http.server, and open http://localhost:8000/.";
    }
    const browser = "Use a current Chrome, Edge, Firefox (114 or later) or Safari (16.4 or later).";
    if (typeof WebAssembly !== "object") {
      return `This browser has no WebAssembly, or it is switched off, as in some protected modes. ${browser}`;
    }
    if (!WebAssembly.validate(new Uint8Array(vectors))) return `This browser's WebAssembly has no SIMD. ${browser}`;
    if (typeof OffscreenCanvas !== "function" || typeof createImageBitmap !== "function") {
      return `This browser cannot read photos in a worker. ${browser}`;
    }
    return "";
  };
  const told = document.getElementById("cannot-start");
  const tell = (text) => {
    told.textContent = text;
    told.classList.add("known");
    document.getElementById("sides").hidden = true;
  };
  const reason = missing();
  if (reason) tell(reason);
  else import("./page.js").catch((error) => tell(`The page could not be started: ${error.message}`));
})();
