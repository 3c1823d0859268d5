/** What the gateway refused, with its code; or 0, when there is no link to it. */
export class GatewayError extends Error {
  name = 'GatewayError'

  constructor(code, message) {
    super(message)
    this.code = code
  }
}
