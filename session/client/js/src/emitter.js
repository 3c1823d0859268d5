/** What calls handlers on events. */
export class Emitter {
  #handlers = new Map() // name -> Set

  /** Calls handler on every event of that name, and returns what ends this. */
  on(name, handler) {
    const call = (event) => handler(event) // one handler may be there twice
    const calls = this.#handlers.get(name) ?? new Set()
    this.#handlers.set(name, calls.add(call))
    return () => calls.delete(call)
  }

  emit(name, event) {
    const calls = this.#handlers.get(name)
    if (name === 'error' && !calls?.size) console.warn('ws-gateway:', event) // nobody else will say
    for (const call of [...(calls ?? [])]) {
      try {
        call(event)
      } catch (err) {
        setTimeout(() => { throw err }) // the page's fault: reported as such, and not ours to stumble over
      }
    }
  }
}
