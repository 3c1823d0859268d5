// What a page with the script writes: no import, a global.
/// <reference path="../../dist/client.d.mts" />
const client = new WSGateway.Client()
client.subscribe('match').on('message', ({ text }) => document.title = text)
