// What users of the CommonJS module write.
import gateway = require('ws-gateway-client')

const client: gateway.Client = new gateway.Client('ws://127.0.0.1:5000/')
export = client
