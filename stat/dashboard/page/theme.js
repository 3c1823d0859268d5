// Sets the colours before anything is drawn, so that a dark page does not flash.
'use strict'
{
  let theme = 'auto'
  try {
    theme = localStorage.getItem('theme') ?? 'auto'
  } catch { /* storage is off: nothing is remembered */ }
  document.documentElement.dataset.theme = theme
}
