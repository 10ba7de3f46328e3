/** What speaks gRPC and is no etcd: it is unavailable, with the reason, and nothing worse. */

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { EtcdRegistry } from '../src/lease/etcd/registry.ts'

/** A pair whose key claims more bytes than there are, in an answer whose own lengths are right. */
const BAD_PAIR = Buffer.of(0x12, 2, 0x0a, 9)
/** A length that goes beyond the message. */
const BAD_LENGTH = Buffer.of(0x0a, 99, 1)

for (const [what, message] of [
  ['an answer that ends too early', BAD_LENGTH],
  ['a pair that ends too early', BAD_PAIR],
] as const) {
  test(what, async (t) => {
    const server = createServer()
    server.on('stream', (stream) => {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true })
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
      const head = Buffer.alloc(5)
      head.writeUInt32BE(message.length, 1)
      stream.end(Buffer.concat([head, message]))
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const registry = new EtcdRegistry({ endpoints: [endpoint] })
    t.after(async () => {
      await registry.close()
      server.close()
    })
    const expected = { code: 'unavailable', message: /answer cannot be read: / }
    await assert.rejects(registry.readConfig(t.signal), expected)
    const { value } = await registry.watch(t.signal)[Symbol.asyncIterator]().next()
    assert.ok(value?.kind === 'unavailable')
    assert.match(value.reason, expected.message)
    if (message === BAD_LENGTH) await assert.rejects(registry.putConfig('{}'), expected)
  })
}
