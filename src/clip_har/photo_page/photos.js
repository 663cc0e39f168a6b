// How photos come to a page, chosen, taken, pasted or dropped, and how one is shown.
// What is predicted from them is for the pages.

import { $ } from "./answer.js";

// Calls take with a list of files, never an empty one.
export function listen(take) {
  const given = (files) => files.length && take([...files]);
  for (const id of ["file", "camera"]) {
    $(id).addEventListener("change", (event) => {
      given(event.target.files);
      event.target.value = ""; // so that the same file can be chosen again
    });
  }
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files].filter((item) => item.type.startsWith("image/"));
    if (files.length) {
      event.preventDefault();
      given(files);
    }
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("frame").classList.add("over");
  });
  document.addEventListener("dragleave", () => $("frame").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("frame").classList.remove("over");
    given(event.dataTransfer.files);
  });
  $("picture").addEventListener("error", () => noPicture("Your browser cannot show this file."));
}

export function showPicture(url, text) {
  $("picture").alt = text;
  $("picture").src = url;
  $("picture").hidden = false;
  $("empty").hidden = true;
  $("frame").classList.add("filled");
}

export function noPicture(text) {
  $("picture").hidden = true;
  $("empty").textContent = text;
  $("empty").hidden = false;
}
