/** That this is the second kernel, and that it has what the tests of this folder are here for. */

import assert from 'node:assert/strict'
import { release } from 'node:os'
import { test } from 'node:test'
import { Host } from '../kernel/namespace.ts'

test("it is Debian's kernel, and not that of the machine around it", () => {
  assert.match(release(), /^6\.1\.[0-9-]+-amd64$/)
})

test('it has WireGuard, ipip, dummy links, netem and ESP', async () => {
  await using host = await Host.create('192.168.1.10')
  for (const kind of ['wireguard', 'dummy']) await host.ip(`link add of-${kind} type ${kind}`)
  await host.ip('link add of-ipip type ipip local 192.168.1.10 remote any')
  await host.exec('tc', 'qdisc', 'add', 'dev', 'eth0', 'root', 'netem', 'delay', '1ms')
  await host.ip(
    `xfrm state add src 192.168.1.10 dst 192.168.1.11 proto esp spi 1 mode tunnel aead rfc4106(gcm(aes)) 0x${'0'.repeat(40)} 128`,
  )
})
