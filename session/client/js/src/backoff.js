/** What a close code tells a client to do: "stop", or come "back", or "later" because there is too much of something. */
export function advice(code) {
  if (code >= 4500 || [1000, 1002, 1003, 1007, 1009].includes(code)) return 'stop'
  return code === 1013 || code === 4013 ? 'later' : 'back'
}

/** How many attempts a client is taken to have made already when it shall come later: all the others do too. */
export const CONGESTED = 3

/** The wait before attempt n, from 0: min plus a random part of a time that doubles from min (full jitter), at most max. */
export const backoff = (n, min, max) => Math.min(max, min + Math.random() * Math.min(max, min * 2 ** n))
