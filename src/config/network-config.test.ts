import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ConfigError, parseNetworkConfig } from './network-config.ts'

/** The error that a config gives, as text. */
function refusal(config: object | string): string {
  try {
    parseNetworkConfig(typeof config === 'string' ? config : JSON.stringify(config))
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error))
    return error.message
  }
  throw new assert.AssertionError({ message: `accepted: ${JSON.stringify(config)}` })
}

test('flannel’s defaults: the first subnet is skipped, the length is 24 or 64', () => {
  assert.deepEqual(parseNetworkConfig('{"Network": "10.3.0.0/16"}').ranges, {
    inet: { network: '10.3.0.0/16', subnetLength: 24, subnetMin: '10.3.1.0', subnetMax: '10.3.255.0' },
  })
  const text = '{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fc00::/48"}'
  assert.deepEqual(parseNetworkConfig(text).ranges, {
    inet6: {
      network: 'fc00::/48',
      subnetLength: 64,
      subnetMin: 'fc00:0:0:1::',
      subnetMax: 'fc00:0:0:ffff::',
    },
  })
})

test('flannel’s override example', () => {
  const text = `{ "Network": "10.3.0.0/16", "SubnetMin": "10.3.5.0", "SubnetMax": "10.3.8.0", "SubnetLen": 28,
    "EnableNFTables": true, "Backend": { "Type": "VXLAN", "VNI": 7 } }`
  const config = parseNetworkConfig(text)
  assert.deepEqual(config.ranges.inet, {
    network: '10.3.0.0/16',
    subnetLength: 28,
    subnetMin: '10.3.5.0',
    subnetMax: '10.3.8.0',
  })
  assert.equal(config.enableNftables, true)
  assert.equal(config.backend.type, 'vxlan')
  assert.equal(config.backend.settings.integer('vni', { min: 1, max: 100, default: 1 }), 7)
})

test('keys in any case, null and unknown keys ignored, zero means not given, host bits are masked', () => {
  const text = `{"NETWORK": "10.3.7.9/16", "subnetlen": 0, "SubnetMIN": "0.0.0.0", "SubnetMax": null, "Other": [1],
    "enableipv4": null, "backend": null}`
  const config = parseNetworkConfig(text)
  assert.deepEqual(config.ranges, parseNetworkConfig('{"Network": "10.3.0.0/16"}').ranges)
  assert.equal(config.backend.type, 'udp')
  assert.equal(parseNetworkConfig('{"Network": "10.3.0.0/16", "Backend": {}}').backend.type, '')
})

test('the length of a subnet follows the length of the network', () => {
  for (const [network, length] of Object.entries({ 8: 24, 22: 24, 23: 25, 28: 30 })) {
    assert.equal(parseNetworkConfig(`{"Network": "10.0.0.0/${network}"}`).ranges.inet?.subnetLength, length)
  }
  for (const [network, length] of Object.entries({ 48: 64, 62: 64, 63: 65, 124: 126 })) {
    const text = `{"EnableIPv6": true, "Network": "10.0.0.0/8", "IPv6Network": "fd00::/${network}"}`
    assert.equal(parseNetworkConfig(text).ranges.inet6?.subnetLength, length)
  }
})

test('each error names the field, the value and what is allowed', () => {
  const network = { Network: '10.3.0.0/16' }
  const both = { ...network, EnableIPv6: true, IPv6Network: 'fc00::/48' }
  const expected: [object | string, string][] = [
    ['{"Network"', 'the network config is "{\\"Network\\"": it is not JSON'],
    ['[]', 'the network config is []: it must be a JSON object'],
    [{}, 'Network is missing: please define a correct Network parameter in the flannel config'],
    [{ Network: 'fc00::/48' }, 'Network is "fc00::/48": please define a correct Network parameter'],
    [{ Network: 10 }, 'Network is 10: it must be a string'],
    [{ EnableIPv4: false }, 'EnableIPv4 is false: EnableIPv4 or EnableIPv6 must be true'],
    [{ ...network, EnableIPv6: 1 }, 'EnableIPv6 is 1: it must be true or false'],
    [
      { ...network, EnableIPv6: true },
      'IPv6Network is missing: please define a correct IPv6Network parameter',
    ],
    [
      { Network: '10.3.0.0/29' },
      'Network is "10.3.0.0/29": network is too small. Minimum useful network prefix is /28',
    ],
    [{ ...network, SubnetLen: '24' }, 'SubnetLen is "24": it must be a whole number from 0 to 32'],
    [{ ...network, SubnetLen: 24.5 }, 'SubnetLen is 24.5: it must be a whole number from 0 to 32'],
    [{ ...network, SubnetLen: 31 }, 'SubnetLen is 31: SubnetLen must be less than /31; allowed is 18 to 30'],
    [
      { ...network, SubnetLen: 17 },
      'SubnetLen is 17: network must be able to accommodate at least four subnets; allowed',
    ],
    [
      { ...network, SubnetMin: '10.4.0.0' },
      'SubnetMin is "10.4.0.0": SubnetMin is not in the range of the Network 10.3.0.0/16',
    ],
    [
      { ...network, SubnetMax: '10.3.8.1' },
      'SubnetMax is "10.3.8.1": SubnetMax is not on a SubnetLen boundary',
    ],
    [
      { ...network, SubnetMin: '10.3.1.0/24' },
      'SubnetMin is "10.3.1.0/24": it must be an address in 10.3.0.0/16',
    ],
    [
      { ...network, SubnetMin: '10.3.9.0', SubnetMax: '10.3.8.0' },
      'SubnetMin is "10.3.9.0": it must not be after SubnetMax 10.3.8.0',
    ],
    [
      { ...both, IPv6SubnetMin: 'fc01::' },
      'IPv6SubnetMin is "fc01::": IPv6SubnetMin is not in the range of the IPv6Network',
    ],
    [
      { ...both, IPv6SubnetMax: 'fc00::1' },
      'IPv6SubnetMax is "fc00::1": IPv6SubnetMax is not on a SubnetLen boundary',
    ],
    [
      { ...both, IPv6SubnetLen: 127 },
      'IPv6SubnetLen is 127: SubnetLen must be less than /127; allowed is 50 to 126',
    ],
    [
      { ...both, IPv6Network: 'fc00::/125' },
      'IPv6Network is "fc00::/125": network is too small. Minimum useful network prefix is /124',
    ],
    [{ ...network, Backend: 'vxlan' }, 'Backend is "vxlan": it must be an object'],
    [{ ...network, Backend: { Type: 1 } }, 'Backend.Type is 1: it must be a string'],
  ]
  for (const [config, message] of expected) {
    assert.ok(refusal(config).startsWith(message), `${refusal(config)}\ndoes not start with\n${message}`)
  }
})

test('a backend reads its settings with the same care', () => {
  const text =
    '{"Network": "10.3.0.0/16", "Backend": {"Type": "vxlan", "VNI": 0, "L3Miss": "yes", "port": 4789, "MTU": null}}'
  const { settings } = parseNetworkConfig(text).backend
  assert.equal(settings.integer('Port', { min: 0, max: 65535, default: 0 }), 4789)
  assert.equal(settings.integer('MTU', { min: 68, max: 65535, default: undefined }), undefined)
  assert.equal(settings.boolean('Learning', false), false)
  assert.throws(() => settings.integer('VNI', { min: 1, max: 5, default: 1 }), {
    message: 'Backend.VNI is 0: it must be a whole number from 1 to 5',
    field: 'Backend.VNI',
  })
  assert.throws(() => settings.boolean('L3Miss', false), {
    message: 'Backend.L3Miss is "yes": it must be true or false',
  })
})

test('where subnets are given, only the network is read of how they are chosen', () => {
  const text = '{"Network": "10.3.0.0/30", "SubnetLen": 7, "SubnetMin": "192.0.2.1", "SubnetMax": "x"}'
  assert.throws(() => parseNetworkConfig(text), { name: 'ConfigError' })
  assert.partialDeepStrictEqual(parseNetworkConfig(text, true).ranges, {
    inet: { network: '10.3.0.0/30', given: true },
  })
  assert.throws(() => parseNetworkConfig('{"Network": "x"}', true), /please define a correct Network/)
})
