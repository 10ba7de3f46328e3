import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp } from '../address/ip.ts'
import { parseNetworkConfig } from '../config/network-config.ts'
import type { HostFacts } from './backend.ts'
import { checkBackend, openBackend } from './table.ts'

const ADDRESSES = { inet: parseIp('192.168.1.10') }
const HOST: HostFacts = {
  external: { name: 'eth0', index: 2, mtu: 1500, addresses: ADDRESSES },
  publicIps: ADDRESSES,
  links: new Map(),
  underlay: [],
}

function config(Type: string): ReturnType<typeof parseNetworkConfig> {
  return parseNetworkConfig(JSON.stringify({ Network: '10.10.0.0/16', Backend: { Type } }))
}

test('an unknown type is refused with the list of those there are, whoever asks', async () => {
  const refused = (type: string) => ({
    name: 'ConfigError',
    message: new RegExp(`Backend\\.Type is "${type}": it must be one of: vxlan, host-gw, ipip, .*alloc`),
  })
  for (const type of ['udp', 'constructor']) {
    assert.throws(() => checkBackend(config(type), HOST), refused(type))
    await assert.rejects(openBackend(config(type), HOST), refused(type))
  }
})

test('a backend that needs nothing of the machine is made at once', async () => {
  checkBackend(config('VXLAN'), HOST)
  assert.equal((await openBackend(config('VXLAN'), HOST)).type, 'vxlan')
})
