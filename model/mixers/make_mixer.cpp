#include "model/mixers/make_mixer.hpp"

#include "model/mixers/attention.hpp"
#include "model/mixers/conv_attention.hpp"
#include "model/mixers/latent_attention.hpp"
#include "model/mixers/recurrent.hpp"

namespace switchyard {

std::unique_ptr<SequenceMixer> make_mixer(ParameterStore& store, const std::string& layer_name,
                                          const ModelConfig& model, std::int64_t layer,
                                          DType compute) {
  const MixerConfig& mixer = model.mixer_of_layer(layer);
  if (mixer.is_attention() && model.has_latent_attention())
    return std::make_unique<LatentAttentionMixer>(store, layer_name + ".attention", model, compute);
  if (mixer.kind == MixerKind::conv_attention)
    return std::make_unique<ConvAttentionMixer>(store, layer_name + ".attention", model, mixer,
                                                compute, layer);
  if (mixer.is_attention())
    return std::make_unique<AttentionMixer>(store, layer_name + ".attention", model, mixer, compute,
                                            layer);
  return std::make_unique<RecurrentMixer>(store, layer_name + ".mixer", model, layer, compute);
}

}  // namespace switchyard
